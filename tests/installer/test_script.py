"""The install script: what it holds, and how it refuses what is not whole."""

import base64
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import skyagent
import skyctl.installer
from skyctl.domain.engine import SwarmJoin
from skyctl.installer import PARTS, InstallScript, agent_archive, refusal, render, requirements, uninstaller
from tests.support.helpers import PATIENCE_SECONDS, need

ROOT = Path(__file__).parents[2]
JOIN = SwarmJoin("10.0.0.1:2377", "SWMTKN-1-secret")
INVITATION = InstallScript(
    worker_id="0b6e6e4e-5f0c-4f6e-9d0e-2f7d1c0f3a51",
    token="eyJhbGciOi.worker.secret",
    api_url="https://manager.example:8642",
    heartbeat_interval_seconds=30,
    insecure=False,
    join=JOIN,
)
SCRIPT = render(INVITATION)
LAST_LINE = '{ main "$@"; }\n'
NEEDS_ROOT = "error W12: this script needs root"
HOSTILE = [
    "'",
    "''; touch x; '",
    '"',
    "$(touch x)",
    "`touch x`",
    "a\nmain\n",
    "\\",
    "@@agent @@config $config",
    "é\u2028",
    "-n",
]


def functions(script: str = SCRIPT) -> str:
    """The script without the line that starts it."""
    assert script.endswith("\n" + LAST_LINE)
    return script.removesuffix(LAST_LINE)


def shell(script: str, *arguments: str, interpreter: str = "sh", **options: Any) -> subprocess.CompletedProcess[str]:
    command = [interpreter, "-s", *arguments]
    return subprocess.run(command, input=script, capture_output=True, text=True, timeout=PATIENCE_SECONDS, **options)


# What it holds


@pytest.mark.parametrize("script", [SCRIPT, uninstaller()], ids=["install", "uninstall"])
def test_shellcheck_finds_nothing(script: str) -> None:
    found = subprocess.run(
        [need("shellcheck"), "-s", "sh", "-"], input=script, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert found.stdout + found.stderr == ""


def test_every_part_can_be_read_at_a_glance() -> None:
    parts = list((Path(skyctl.installer.__file__).parent / "parts").glob("*.sh"))
    assert {part.stem for part in parts} == {*PARTS, "uninstall"}
    assert [part.name for part in parts if part.read_text().count("\n") > 150] == []


def test_the_codes_of_the_script_are_those_of_the_documents() -> None:
    """Each failure has a code of its own, and each code a row that tells the remedy."""
    said = {int(code) for code in re.findall(r"\bfail (\d\d)\b|error W(\d\d):", SCRIPT) for code in code if code}
    rows = re.findall(r"^\| W(\d\d) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/operations.md").read_text(), re.M)
    assert said == {int(code) for code, _, _ in rows}
    assert len(rows) == len(said)


@pytest.mark.parametrize("interpreter", ["sh", "dash", "bash"])
def test_it_parses(interpreter: str) -> None:
    checked = subprocess.run(
        [need(interpreter), "-n"], input=SCRIPT, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_same_worker_gets_the_same_script() -> None:
    assert render(INVITATION) == SCRIPT


def test_it_pins_what_the_manager_itself_runs_with() -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", requirements(), re.M))
    for package in ("httpx", "psutil"):
        assert pinned[package] == version(package)
    assert requirements().rstrip() in SCRIPT


def test_every_library_has_the_checksums_of_its_files() -> None:
    """What is installed is what was pinned, whoever hands it over, and nothing beside it."""
    blocks = re.split(r"^(?=\w)", requirements(), flags=re.M)[1:]
    assert {block.split("==")[0] for block in blocks} >= {
        "httpx",
        "httpcore",
        "h11",
        "anyio",
        "certifi",
        "idna",
        "psutil",
    }
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


def test_it_carries_the_agent_of_this_very_version() -> None:
    payload = SCRIPT.split("<<'AGENT'\n")[1].split("\nAGENT\n")[0]
    archive = base64.b64decode(payload)
    assert f"agent_sha256={hashlib.sha256(archive).hexdigest()}\n" in SCRIPT
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        carried = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    package = Path(skyagent.__file__).parent
    assert carried == {f"skyagent/{path.relative_to(package)}": path.read_bytes() for path in package.rglob("*.py")}
    assert f'__version__ = "{skyagent.__version__}"'.encode() in carried["skyagent/__init__.py"]
    assert f"agent_version={skyagent.__version__}\n" in SCRIPT


def test_the_archive_depends_on_nothing_but_the_files(tmp_path: Path) -> None:
    elsewhere = tmp_path / "skyagent"
    shutil.copytree(Path(skyagent.__file__).parent, elsewhere)
    for path in elsewhere.rglob("*.py"):
        os.utime(path, (1, 1))
    program = "import sys; from skyctl.installer import agent_archive; sys.stdout.buffer.write(agent_archive())"
    again = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )
    assert again.stdout == agent_archive()


def test_the_secrets_do_not_show_where_the_values_are_shown() -> None:
    shown = repr(INVITATION)
    assert INVITATION.token not in shown
    assert JOIN.token not in shown


def test_the_secrets_are_only_ever_handed_over_on_stdin() -> None:
    uses = [line.strip() for line in functions().splitlines() if re.search(r"\$\{?(config|swarm_join)\b", line)]
    compared = [line for line in uses if line.startswith("[ ")]  # by the shell itself: no program gets them
    assert [line for line in uses if line not in compared] == ["$config", "$swarm_join"]
    for secret in (INVITATION.token, JOIN.token):
        assert SCRIPT.count(secret) == 1


def values_as_the_shell_sees_them(
    invitation: InstallScript, folder: Path
) -> tuple[dict[str, object], dict[str, object]]:
    show = "cat <<SHOW\n$config\n$swarm_join\nSHOW\n"
    done = shell(functions(render(invitation)) + show, cwd=folder)
    assert (done.returncode, done.stderr, list(folder.iterdir())) == (0, "", [])
    config, join = done.stdout.splitlines()
    return json.loads(config), json.loads(join)


@given(text=st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"])))
def test_no_value_breaks_out_of_its_quotes(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    hostile = InstallScript(text, text, text, 30, True, SwarmJoin(text, text))
    config, join = values_as_the_shell_sees_them(hostile, tmp_path_factory.mktemp("empty"))
    expected = {"apiUrl": text, "authToken": text, "workerId": text, "heartbeatInterval": 30, "insecure": True}
    assert config == expected
    assert (join["RemoteAddrs"], join["JoinToken"]) == ([text], text)


def test_only_an_insecure_worker_is_told_so(tmp_path: Path) -> None:
    config, _ = values_as_the_shell_sees_them(INVITATION, tmp_path)
    assert "insecure" not in config


# Cut off, damaged, or run by the wrong user


@pytest.mark.parametrize("interpreter", ["dash", "bash"])
def test_cut_off_anywhere_it_does_nothing(interpreter: str, tmp_path: Path) -> None:
    path, script, empty = need(interpreter), tmp_path / "script", tmp_path / "empty"
    empty.mkdir()

    def output(text: str) -> str:
        # Without any program in reach, whatever main does ends in its own error at once.
        script.write_text(text)
        command = [path, str(script)]
        ended = subprocess.run(
            command, cwd=empty, env={"PATH": "/nonexistent"}, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        return ended.stderr

    assert NEEDS_ROOT in output(SCRIPT)
    ends = {match.end() for match in re.finditer(r"\n(?=\w|$)", functions())}
    ends |= {random.Random(seed).randrange(len(SCRIPT) - len(LAST_LINE)) for seed in range(100)}
    ends |= {len(SCRIPT) - cut for cut in range(2, len(LAST_LINE))} - {len(SCRIPT) - 1}
    assert [end for end in sorted(ends) if NEEDS_ROOT in output(SCRIPT[:end])] == []
    assert list(empty.iterdir()) == []


def test_no_name_of_a_function_begins_with_that_of_one_before_it() -> None:
    """Else a script that is cut off within the later name would call the earlier."""
    names = re.findall(r"^(\w+)\(\) [{(]", SCRIPT.replace(uninstaller(), ""), re.M)
    assert [(one, two) for n, two in enumerate(names) for one in names[:n] if two.startswith(one)] == []


def unpack(script: str, environment: Path) -> subprocess.CompletedProcess[str]:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=PATIENCE_SECONDS)
    return shell(
        functions(script) + 'scratch=$2; check_agent; unpack_agent "$1"\n',
        str(environment / "bin/python"),
        str(environment),
    )


def unpacked(environment: Path) -> dict[str, bytes]:
    packages = next(environment.glob("lib/python*/site-packages"))
    return {str(path.relative_to(packages)): path.read_bytes() for path in packages.glob("skyagent/**/*.py")}


def test_the_agent_unpacks_to_the_managers_own_files(tmp_path: Path) -> None:
    done = unpack(SCRIPT, tmp_path / "venv")
    assert done.returncode == 0, done.stderr
    package = Path(skyagent.__file__).parent
    assert unpacked(tmp_path / "venv") == {
        f"skyagent/{p.relative_to(package)}": p.read_bytes() for p in package.rglob("*.py")
    }


@pytest.mark.parametrize("damage", ["another letter", "a line less", "not base64"])
def test_a_damaged_agent_is_refused(tmp_path: Path, damage: str) -> None:
    head, line, tail = re.split(r"(?<=<<'AGENT'\n)(.*\n)", SCRIPT, maxsplit=1)
    changed = ("B" if line[40] == "A" else "A").join((line[:40], line[41:]))
    bad = {"another letter": changed, "a line less": "", "not base64": line[:-2] + "\n"}[damage]
    done = unpack(head + bad + tail, tmp_path / "venv")
    assert (done.returncode, done.stderr) == (
        40,
        "error W40: the agent in this script is damaged\n"
        "hint: have the script generated again: skyctl workers install-script\n",
    )
    assert unpacked(tmp_path / "venv") == {}


def test_a_library_that_was_exchanged_in_the_script_is_refused(tmp_path: Path) -> None:
    done = unpack(SCRIPT.replace("httpx==", "httpy=="), tmp_path / "venv")
    assert done.returncode == 40
    assert "error W40: the list of the agent's libraries in this script is damaged" in done.stderr


def test_without_root_it_refuses() -> None:
    other: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    done = shell(SCRIPT, **other)
    assert (done.returncode, done.stdout) == (12, "")
    assert done.stderr == f"{NEEDS_ROOT}\nhint: run it as root, for example: sudo sh SCRIPT\n"


def test_what_stands_in_for_a_script_that_is_not_given_says_why_and_fails(tmp_path: Path) -> None:
    done = shell(refusal(25, "this link's gone; $(touch x)", "make `another`"), cwd=tmp_path)
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (25, "", [])
    assert done.stderr == "error W25: this link's gone; $(touch x)\nhint: make `another`\n"


def test_its_help_needs_no_root_and_changes_nothing() -> None:
    done = shell(SCRIPT, "--", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--dry-run", "--offline DIR", "--with-nix", "--uninstall"):
        assert option in done.stdout
