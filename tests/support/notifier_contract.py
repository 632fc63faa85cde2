"""What every notifier keeps to, the fake and the real one alike."""

from dataclasses import dataclass, replace

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

    def test_alerts_arrive_as_they_are_and_in_their_order(self, channel: Channel) -> None:
        others = [replace(ALERT, title=f"number {number}") for number in range(20)]
        with channel.notifier.opened(channel.name) as send:
            for alert in (ALERT, *others):
                send(alert)
        assert channel.arrived == [(alert.title, alert.message) for alert in (ALERT, *others)]

    def test_a_channel_that_fails_is_said_and_works_again(self, channel: Channel) -> None:
        with channel.notifier.opened(channel.name) as send:
            channel.fails.append(True)
            with pytest.raises(ChannelFailed, match=channel.name):
                send(ALERT)
            channel.fails.clear()
            send(ALERT)
        assert len(channel.arrived) == 1

    def test_a_channel_may_be_opened_again(self, channel: Channel) -> None:
        for _ in range(2):
            with channel.notifier.opened(channel.name) as send:
                send(ALERT)
        assert len(channel.arrived) == 2

    def test_a_channel_that_is_not_there_is_said(self, channel: Channel) -> None:
        with (
            channel.notifier.opened("slack:12345678") as send,
            pytest.raises(ChannelFailed, match="slack:12345678"),
        ):
            send(ALERT)
