"""Channels: the fake and the real ones by one contract; their URLs are secrets."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from skyctl.domain.errors import ChannelFailed
from skyctl.notifiers import apprise
from skyctl.operations.shared.context import Send
from tests.support.fakes import FakeNotifier
from tests.support.helpers import PATIENCE_SECONDS, eventually
from tests.support.notifier_contract import ALERT, Channel, NotifierContract
from tests.support.webhook import webhook


class TestFakeNotifier(NotifierContract):
    @pytest.fixture
    def channel(self) -> Channel:
        fake = FakeNotifier()
        return Channel(fake, fake.channel, fake.arrived, fake.fails)


class TestChannels(NotifierContract):
    @pytest.fixture
    def channel(self) -> Iterator[Channel]:
        with webhook() as hook:
            [name] = apprise.names([hook.url])
            yield Channel(apprise.Channels([hook.url]), name, hook.arrived, hook.fails)


@pytest.mark.parametrize("url", ["json://127.0.0.1:1/a-secret", "nonsense://a-secret", "slack://a-secret"])
def test_neither_name_nor_error_holds_the_url(url: str, caplog: pytest.LogCaptureFixture) -> None:
    [name] = apprise.names([url])
    with apprise.Channels([url]).opened(name) as send, pytest.raises(ChannelFailed) as caught:
        send(ALERT)
    for said in (name, caught.value.message, caught.value.hint, caplog.text):
        assert "a-secret" not in said


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("json://127.0.0.1:1/a-secret", "Connection refused"),
        ("mailto://user:a-secret@example.com:1?smtp=127.0.0.1&mode=insecure", "Connection refused"),
    ],
)
def test_it_is_said_why_an_alert_was_not_taken(form: str, why: str) -> None:
    [name] = apprise.names([form])
    with apprise.Channels([form]).opened(name) as send, pytest.raises(ChannelFailed) as caught:
        send(ALERT)
    assert caught.value.message == f"the channel {name} did not take the alert: {why}"


def test_a_bad_answer_is_said_and_only_while_it_is_bad() -> None:
    with webhook() as hook:
        [name] = apprise.names([hook.url])
        with apprise.Channels([hook.url]).opened(name) as send:
            hook.fails.append(True)
            with pytest.raises(ChannelFailed, match=r"did not take the alert: it answered 500 Internal Server Error$"):
                send(ALERT)
            hook.fails.clear()
            send(ALERT)


def test_a_channel_that_answers_without_an_end_is_given_up_and_takes_the_next_alert() -> None:
    with webhook() as hook:
        [name] = apprise.names([hook.url])
        with apprise.Channels([hook.url], limit_seconds=3).opened(name) as send:
            hook.drip()
            with pytest.raises(ChannelFailed, match=f"^the channel {name} did not answer within 3 s$"):
                send(ALERT)
            assert children() == [], "what hangs is killed"
            hook.drips = False
            hook.answers.set()
            eventually(lambda: sent(send))
        assert hook.arrived == [(ALERT.title, ALERT.message)]


@pytest.mark.parametrize("status", [301, 302, 303])
@pytest.mark.parametrize("form", ["{}", "http://u:a-secret@{}"])
def test_a_channel_that_leads_elsewhere_without_the_alert_has_failed(status: int, form: str) -> None:
    with webhook() as hook:
        host = urlsplit(hook.url).netloc
        path = "/elsewhere?token=a-secret"
        hook.leads_elsewhere = status, path if form == "{}" else form.format(host) + path
        [name] = apprise.names([hook.url])
        with apprise.Channels([hook.url]).opened(name) as send:
            with pytest.raises(ChannelFailed) as caught:
                send(ALERT)
            hook.leads_elsewhere = None
            send(ALERT)
        wants = f"the channel {name} answered {status} and leads to http://{host}, without the alert"
        assert caught.value.message == wants
        assert (hook.got, hook.arrived) == ([], [(ALERT.title, ALERT.message)])


def test_an_alert_goes_with_whoever_leads_it_elsewhere_whole() -> None:
    with webhook() as hook:
        hook.leads_elsewhere = 308, "/elsewhere"
        [name] = apprise.names([hook.url])
        with apprise.Channels([hook.url]).opened(name) as send:
            send(ALERT)
        assert hook.arrived == [(ALERT.title, ALERT.message)]


def test_many_alerts_are_sent_by_one_process_whose_command_line_holds_no_url() -> None:
    with webhook() as hook:
        [name] = apprise.names([hook.url])
        with apprise.Channels([hook.url]).opened(name) as send:
            send(ALERT)
            [first] = children()
            assert "a-secret" not in f"{first.cmdline()} {first.environ()}"
            send(ALERT)
            assert children() == [first]
        assert children() == []


def test_a_process_that_was_killed_is_followed_by_another() -> None:
    with webhook() as hook:
        [name] = apprise.names([hook.url])
        with apprise.Channels([hook.url]).opened(name) as send:
            send(ALERT)
            children()[0].kill()
            with pytest.raises(ChannelFailed, match=f"^the channel {name} did not take the alert$"):
                send(ALERT)
            send(ALERT)
        assert len(hook.arrived) == 2


def test_a_process_that_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    url = "json://127.0.0.1:1/a-secret"
    [name] = apprise.names([url])
    with (
        apprise.Channels([url]).opened(name) as send,
        pytest.raises(ChannelFailed, match="could not be tried: No such file"),
    ):
        send(ALERT)


def test_the_sender_knows_no_settings_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexport -p >{tmp_path}/environment\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    for name in ("SKYCTL_DATABASE_URL", "DATABASE_URL", "JWT_SECRET", "SKYCTL_ALERT_CHANNELS", "PGPASSWORD", "ANY"):
        monkeypatch.setenv(name, "a-secret")
    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/authorities.pem")
    url = "json://127.0.0.1:1"
    [name] = apprise.names([url])
    with apprise.Channels([url]).opened(name) as send, pytest.raises(ChannelFailed, match="did not take"):
        send(ALERT)
    environment = (tmp_path / "environment").read_text()
    assert "a-secret" not in environment
    assert "proxy.example.com" in environment
    assert "/etc/authorities.pem" in environment


def test_the_sender_sends_nothing_once_its_parent_has_ended() -> None:
    with webhook() as hook:
        lines = [{"url": hook.url, "parent": 1 << 30}, {"title": "t", "body": "b", "kind": "info"}]
        command = [sys.executable, "-m", "skyctl.notifiers.apprise_child"]
        tasks = "\n".join(map(json.dumps, lines))
        done = subprocess.run(command, input=tasks, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert (done.returncode, hook.arrived) == (-signal.SIGKILL, [])


def children() -> list[psutil.Process]:
    """The senders that this process has started."""
    return [child for child in psutil.Process().children() if "apprise_child" in " ".join(child.cmdline())]


def sent(send: Send) -> bool:
    """Whether a channel takes an alert; a busy machine may need longer than it is given."""
    try:
        send(ALERT)
    except ChannelFailed:
        return False
    return True
