"""The threads that deliver alerts, one a channel: a channel that hangs holds up neither the others nor the monitor."""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from skyctl.domain.errors import ChannelFailed, SkyctlError
from skyctl.host.condition import Conditions
from skyctl.host.vital import VitalLoop
from skyctl.operations.monitor import deliveries
from skyctl.operations.shared.context import Context, Send

LONGEST_REST_SECONDS = 30.0
AFTER_ERROR_SECONDS = 5.0
BOUND_SECONDS = 120.0  # several times what one alert may take

log = logging.getLogger(__name__)


class Deliverer:
    """Delivers alerts to all channels; `sent` is called after each attempt, with the channel and whether it took the
    alert."""

    def __init__(self, context: Context, sent: Callable[[str, bool], None]) -> None:
        self._context, self._sent = context, sent
        self._looking = Conditions(log, "delivery_waits", "delivery_goes_on", "channel")
        self._sending = Conditions(log, "alert_not_delivered", "channel_takes_alerts", "channel")
        self._loops = {
            channel: VitalLoop(f"deliverer {channel}", partial(self._empty, channel), BOUND_SECONDS)
            for channel in context.channels
        }

    def start(self) -> None:
        """Start to deliver, until the process ends."""
        for loop in self._loops.values():
            loop.start()

    def wake(self) -> None:
        """Have the threads look for what waits, now."""
        for loop in self._loops.values():
            loop.wake()

    def deliver_what_waits(self, seconds: float) -> None:
        """Deliver what is due now; what the channels have not taken within that time is left for the next call."""
        threads = [threading.Thread(target=self._empty, args=[channel], daemon=True) for channel in self._loops]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _empty(self, channel: str) -> float:
        """Deliver what is due by a channel; return in how many seconds to look again."""
        try:
            with self._context.notifier().opened(channel) as send:
                while self._deliver(channel, send):
                    pass
            self._looking[channel].works()
            return min(LONGEST_REST_SECONDS, deliveries.seconds_to_next(self._context, channel) or LONGEST_REST_SECONDS)
        except SkyctlError as error:
            self._looking[channel].failed(error.message)
            return AFTER_ERROR_SECONDS

    def _deliver(self, channel: str, send: Send) -> bool:
        """Send one message; return False where none is due."""
        try:
            sent = deliveries.deliver_next(self._context, channel, send)
        except ChannelFailed as error:
            self._sending[channel].failed(error.message)
            self._sent(channel, False)
            return True
        if sent:
            self._sending[channel].works()
            newest = sent[0]
            log.info(
                "action=alert_delivered channel=%s alert=%d kind=%s alerts=%d",
                channel,
                newest.id,
                newest.kind,
                len(sent),
            )
            self._sent(channel, True)
        return bool(sent)
