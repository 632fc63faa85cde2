"""Channels: the fake and the real ones by one contract; their URLs are secrets."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyctl.domain.errors import ChannelFailed
from skyctl.notifiers import apprise
from tests.support.fakes import FakeNotifier
from tests.support.helpers import PATIENCE_SECONDS
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
    with pytest.raises(ChannelFailed) as caught:
        apprise.Channels([url]).send(name, ALERT)
    for said in (name, caught.value.message, caught.value.hint, caplog.text):
        assert "a-secret" not in said


def test_a_channel_that_answers_without_an_end_is_given_up() -> None:
    with webhook() as hook:
        hook.drip()
        [name] = apprise.names([hook.url])
        with pytest.raises(ChannelFailed, match=f"^the channel {name} did not answer within 3 s$"):
            apprise.Channels([hook.url], limit_seconds=3).send(name, ALERT)
        assert hook.arrived == []


def test_a_process_that_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    url = "json://127.0.0.1:1/a-secret"
    [name] = apprise.names([url])
    with pytest.raises(ChannelFailed, match="could not be tried: No such file"):
        apprise.Channels([url]).send(name, ALERT)


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
    apprise.Channels([url]).send(name, ALERT)
    environment = (tmp_path / "environment").read_text()
    assert "a-secret" not in environment
    assert "proxy.example.com" in environment
    assert "/etc/authorities.pem" in environment


def test_the_sender_sends_nothing_once_its_parent_has_ended() -> None:
    with webhook() as hook:
        task = {"url": hook.url, "title": "t", "body": "b", "kind": "info", "parent": 1 << 30}
        command = [sys.executable, "-m", "skyctl.notifiers.apprise_child"]
        done = subprocess.run(command, input=json.dumps(task), text=True, timeout=PATIENCE_SECONDS, check=False)
        assert (done.returncode, hook.arrived) == (-signal.SIGKILL, [])
