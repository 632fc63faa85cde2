"""What every notifier keeps to, the fake and the real one alike."""

from dataclasses import dataclass

import pytest

from skyctl.domain.cluster import Alert
from skyctl.domain.errors import ChannelFailed
from skyctl.operations.shared.context import Notifier

ALERT = Alert("worker_offline", None, 'Worker "w1" is offline', "silent for\n125 s: 💥 'quoted'")


@dataclass
class Channel:
    """A channel under test: its notifier and name, what arrived there as (title, text), and a switch that lets it
    fail."""

    notifier: Notifier
    name: str
    arrived: list[tuple[str, str]]
    fails: list[bool]


class NotifierContract:
    """To be inherited by a test class that gives the channel."""

    @pytest.fixture
    def channel(self) -> Channel:
        """A channel that works."""
        raise NotImplementedError

    def test_an_alert_arrives_as_it_is(self, channel: Channel) -> None:
        channel.notifier.send(channel.name, ALERT)
        assert channel.arrived == [(ALERT.title, ALERT.message)]

    def test_a_channel_that_fails_is_said_and_works_again(self, channel: Channel) -> None:
        channel.fails.append(True)
        with pytest.raises(ChannelFailed, match=channel.name):
            channel.notifier.send(channel.name, ALERT)
        channel.fails.clear()
        channel.notifier.send(channel.name, ALERT)
        assert len(channel.arrived) == 1

    def test_a_channel_that_is_not_there_is_said(self, channel: Channel) -> None:
        with pytest.raises(ChannelFailed, match="slack:12345678"):
            channel.notifier.send("slack:12345678", ALERT)
