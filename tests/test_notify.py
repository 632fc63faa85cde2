"""Channels: the fake and the real ones by one contract; their URLs are secrets."""

from collections.abc import Iterator

import pytest

from skyctl import notify
from skyctl.errors import ChannelFailed
from tests.fakes import FakeNotifier
from tests.notifier_contract import ALERT, Channel, NotifierContract
from tests.webhook import webhook


class TestFakeNotifier(NotifierContract):
    @pytest.fixture
    def channel(self) -> Channel:
        fake = FakeNotifier()
        return Channel(fake, fake.channel, fake.arrived, fake.fails)


class TestChannels(NotifierContract):
    @pytest.fixture
    def channel(self) -> Iterator[Channel]:
        with webhook() as hook:
            [name] = notify.names([hook.url])
            yield Channel(notify.Channels([hook.url]), name, hook.arrived, hook.fails)


@pytest.mark.parametrize("url", ["json://127.0.0.1:1/a-secret", "nonsense://a-secret", "slack://a-secret"])
def test_neither_name_nor_error_holds_the_url(url: str, caplog: pytest.LogCaptureFixture) -> None:
    [name] = notify.names([url])
    with pytest.raises(ChannelFailed) as caught:
        notify.Channels([url]).send(name, ALERT)
    for said in (name, caught.value.message, caught.value.hint, caplog.text):
        assert "a-secret" not in said
