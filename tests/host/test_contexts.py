"""The file of the contexts: its owner's alone, whole whoever else writes, and refused where it could be another's."""

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skyctl.domain.errors import ContextNotFound, Refused, SkyctlError, ValidationError
from skyctl.host import contexts
from skyctl.host.contexts import Context, Contexts

TOKEN = "skyctl_a-secret-of-the-test"
PROD = Context("prod", "https://m.example.com", TOKEN, "PEM")
NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where they are kept; nothing is there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/skyctl/contexts.json"


@pytest.fixture
def kept(file: Path) -> Path:
    """The file with one context in it."""
    contexts.change(lambda held: held.holding(PROD))
    return file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_where_there_is_none_there_are_no_contexts_and_none_is_made(file: Path) -> None:
    assert contexts.read() == Contexts()
    assert not file.parent.parent.exists()


def test_it_is_for_its_owner_alone(kept: Path) -> None:
    assert contexts.path() == kept
    assert (mode(kept), mode(kept.parent), mode(kept.with_name("contexts.lock"))) == (0o600, 0o700, 0o600)
    assert contexts.read() == Contexts((PROD,), "prod")
    assert TOKEN not in repr(contexts.read())


def test_a_folder_that_others_could_enter_is_closed(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.parent.chmod(0o755)
    contexts.change(lambda held: held.holding(PROD))
    assert mode(file.parent) == 0o700


def test_a_home_is_taken_where_no_folder_is_named_or_a_relative_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("", "config"):
        monkeypatch.setenv("XDG_CONFIG_HOME", named)
        assert contexts.path() == tmp_path / ".config/skyctl/contexts.json"


def opened_to_all(file: Path) -> None:
    file.chmod(0o644)


def opened_to_the_group(file: Path) -> None:
    file.chmod(0o640)


def a_link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to(file.with_name("elsewhere"))


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def anothers(file: Path) -> None:
    try:
        os.chown(file, NOBODY, NOBODY)
    except PermissionError:
        pytest.skip("needs root, to make a file of another user")


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (opened_to_all, "has mode 0644: others may read or change it"),
        (opened_to_the_group, "has mode 0640: others may read or change it"),
        (a_link, "cannot be read: Too many levels of symbolic links"),
        (a_pipe, "is no regular file"),
        (anothers, f"belongs to user {NOBODY}, who may change it"),
    ],
)
def test_what_others_could_read_or_change_is_refused(kept: Path, scene: Callable[[Path], None], words: str) -> None:
    scene(kept)
    for ask in (contexts.read, lambda: contexts.change(lambda held: held.holding(PROD))):
        with pytest.raises(ValidationError) as refused:
            ask()
        assert refused.value.message == f"{kept} {words}" or refused.value.message.endswith(words)
        assert str(kept) in refused.value.message
        assert refused.value.hint
        assert TOKEN not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    "content",
    [
        "",
        TOKEN,
        "[]",
        "null",
        f'{{"contexts": "{TOKEN}", "current": ""}}',
        f'{{"contexts": [{{"name": "{TOKEN}"}}], "current": ""}}',
        f'{{"contexts": [{{"name": "a", "url": 1, "token": "{TOKEN}", "authority": ""}}], "current": ""}}',
        json.dumps({"contexts": [PROD._asdict(), PROD._asdict()], "current": ""}),
        json.dumps({"contexts": [], "current": None}),
        "[" * 100_000,
    ],
)
def test_what_is_not_as_it_was_written_is_refused_and_not_shown(kept: Path, content: str) -> None:
    kept.write_text(content)
    with pytest.raises(ValidationError) as refused:
        contexts.read()
    assert refused.value.message == f"{kept} is not as skyctl writes it"
    assert "skyctl login" in refused.value.hint
    with pytest.raises(ValidationError):
        contexts.change(lambda held: held)
    assert kept.read_text() == content


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_folder_of_another_user_is_refused(file: Path) -> None:
    file.parent.mkdir(parents=True)
    os.chown(file.parent, NOBODY, NOBODY)
    with pytest.raises(Refused, match=f"belongs to user {NOBODY}, who could read your tokens"):
        contexts.change(lambda held: held.holding(PROD))
    assert list(file.parent.iterdir()) == []


def test_what_cannot_be_written_is_said_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert contexts.read() == Contexts()
    with pytest.raises(ValidationError, match=r"^XDG_CONFIG_HOME: .+ cannot be used: "):
        contexts.change(lambda held: held.holding(PROD))


def test_of_many_who_write_at_once_each_is_kept_and_readers_see_it_whole(kept: Path) -> None:
    names = [f"c{number}" for number in range(40)]

    def keep(name: str) -> int:
        contexts.change(lambda held: held.holding(PROD._replace(name=name)))
        return len(contexts.read().known)

    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(keep, names))
    assert {context.name for context in contexts.read().known} == {"prod", *names}
    assert max(seen) == 41
    assert sorted(path.name for path in kept.parent.iterdir()) == ["contexts.json", "contexts.lock"]


def test_what_alter_refuses_changes_nothing(kept: Path) -> None:
    before = kept.read_bytes()
    with pytest.raises(ContextNotFound):
        contexts.change(lambda held: held.without(held.named("NAME", "other").name))
    assert kept.read_bytes() == before


def test_one_that_is_nearly_right_is_asked_for() -> None:
    held = Contexts((PROD, PROD._replace(name="stage")))
    with pytest.raises(ContextNotFound) as missing:
        held.named("--context", "prdo")
    assert missing.value.message == "--context: there is no context 'prdo'"
    assert missing.value.hint == "did you mean prod? see `skyctl context list`"


def test_the_current_one_goes_with_its_context() -> None:
    held = Contexts().holding(PROD).holding(PROD._replace(name="a"))
    assert (held.current, [context.name for context in held.known]) == ("a", ["a", "prod"])
    assert held.without("prod").current == "a"
    assert held.without("a").current == ""


@pytest.mark.parametrize("name", ["", "local", "-x", "a b", "a/b", "ä", "x" * 65, "a\n"])
def test_what_no_context_is_called(name: str) -> None:
    with pytest.raises(ValidationError, match="--name"):
        contexts.checked_name("--name", name)


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://m.example.com", True),
        ("http://127.0.0.1:8642", True),
        ("http://[::1]:8642", True),
        ("http://localhost", True),
        ("http://m.example.com", False),
        ("http://10.0.0.1", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
    ],
)
def test_a_token_travels_in_the_clear_to_this_machine_alone(url: str, is_safe: bool) -> None:
    """Also where somebody has edited the file."""
    context = PROD._replace(url=url)
    if is_safe:
        assert context.address.token == TOKEN
        return
    with pytest.raises(ValidationError, match="plain HTTP") as refused:
        _ = context.address
    assert isinstance(refused.value, SkyctlError)
    assert "https://" in refused.value.hint


def test_one_that_was_left_says_how_to_log_in() -> None:
    with pytest.raises(ValidationError, match="you have logged out of it") as refused:
        _ = PROD._replace(token="").address
    assert refused.value.hint == "skyctl login https://m.example.com"
