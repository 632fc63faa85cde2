"""What a caller of the API asks of the monitor: `serve` has neither the engine nor the channels nor the key of
releases."""

from typing import NamedTuple
from uuid import UUID


class MonitorRequest(NamedTuple):
    """A request: the operation as `POST /api/services/{reference}/restart`, and who asks for what, as JSON."""

    id: UUID
    route: str
    text: str
