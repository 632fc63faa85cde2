"""The threads that do what callers of the API ask of the monitor, whether it leads or stands by: as the command line,
they act for a person."""

import logging
from functools import partial

from skyctl.domain.errors import DatabaseRefused, DatabaseUnavailable
from skyctl.host.condition import Condition
from skyctl.host.vital import VitalLoop
from skyctl.operations.admin import monitor_requests
from skyctl.operations.shared.context import Context
from skyctl.store import db

AT_ONCE = 2
LOOK_SECONDS = 30.0
AFTER_ERROR_SECONDS = 1.0
BOUND_SECONDS = 300.0  # several times what one operation may take

log = logging.getLogger(__name__)


class Answerer:
    """Does what is asked, each by `perform`."""

    def __init__(self, context: Context, perform: monitor_requests.Perform) -> None:
        self._context, self._perform = context, perform
        self._loops = [
            VitalLoop(f"answerer {number}", partial(self._serve, number), BOUND_SECONDS, only_told=True)
            for number in range(AT_ONCE)
        ]
        self._asking = [Condition(log, "requests_wait", "requests_go_on", f"answerer={n}") for n in range(AT_ONCE)]

    def start(self) -> None:
        """Start to answer, until the process ends."""
        for loop in self._loops:
            loop.start()

    def _serve(self, number: int) -> float:
        """Answer as long as there is news; return in how many seconds to listen anew. Where it is quiet, this may be a
        standby by now, of which nobody would hear anything."""
        loop, asking = self._loops[number], self._asking[number]
        try:
            with self._context.db.listening(monitor_requests.ASKED) as news:
                while True:
                    asking.works()
                    while request := monitor_requests.answer_next(self._context, self._perform):
                        log.info("action=request_answered route=%r", request.route)
                    with loop.resting():
                        is_quiet = not db.await_news(news, LOOK_SECONDS)
                    if is_quiet:
                        return 0.0
        except (DatabaseUnavailable, DatabaseRefused) as error:
            asking.failed(error.message)
            return AFTER_ERROR_SECONDS
