"""An operation of administration as a route: made once, it is what the API answers and what its document says."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from skyctl.api.administration import relay
from skyctl.api.operation import Answer, ApiRequest, Log, Operation, Page
from skyctl.api.schemas import Document
from skyctl.domain.api_tokens import Role
from skyctl.domain.errors import ValidationError
from skyctl.operations.shared.context import Context

Work = Callable[[Context, ApiRequest], Document | Page]
"""What an operation does: returns the document that is answered as `data`, or the Page of a stream. Raises
SkyctlError."""


class Route(NamedTuple):
    """One operation: the least role that it takes, what it is in one line, what does it, the schema of its answer's
    data, of its parameters in the query and of its body; whether a rule may refuse it; whether `serve` leaves it to a
    monitor, since it takes the engine (which may refuse it), the channels or the key of releases;
    of which log it is a stream, if any."""

    method: str
    path: str
    role: Role
    summary: str
    work: Work
    answers: Document
    query: Sequence[Document] = ()
    body: Document | None = None
    may_refuse: bool = False
    by_monitor: bool = False
    stream: Log | None = None

    @property
    def name(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"

    @property
    def operation(self) -> Operation:
        """The operation as the API runs it."""

        def handle(context: Context, request: ApiRequest) -> Answer:
            if request.body and self.body is None:
                raise ValidationError("the body: nothing is read of it", "leave it out")
            done = relay.ask(context, self.name, request) if self.by_monitor else self.work(context, request)
            return 200, done if isinstance(done, Page) else {"success": True, "data": done}

        return Operation(self.role, handle, waits=self.by_monitor, stream=self.stream)


def parameter(name: str, schema: Document, description: str = "") -> Document:
    """Return a parameter of the query, which may be left out."""
    return {"name": name, "in": "query", "schema": schema} | ({"description": description} if description else {})
