"""Every operation of administration, in one table: the API's routes, and what its document says of them."""

from typing import cast

from skyctl.api.administration import (
    deploying,
    following,
    hosts,
    installation,
    invitations,
    log,
    migrations,
    panel,
    references,
    relay,
    services,
    swarm,
    tokens,
    workers,
)
from skyctl.api.operation import ApiRequest, Operation, Page
from skyctl.api.schemas import Document
from skyctl.domain.errors import Refused
from skyctl.domain.monitor_requests import MonitorRequest
from skyctl.operations.shared.context import Context

TABLE = (
    *workers.ROUTES,
    *hosts.ROUTES,
    *invitations.ROUTES,
    *services.ROUTES,
    *deploying.ROUTES,
    *swarm.ROUTES,
    *migrations.ROUTES,
    *references.ROUTES,
    *log.ROUTES,
    *following.ROUTES,
    *tokens.ROUTES,
    *installation.ROUTES,
)

_BY_NAME = {route.name: route for route in TABLE}
_PANELS = {
    f"{method} {path}": operation for path, methods in panel.OPERATIONS.items() for method, operation in methods.items()
}


def operations() -> dict[str, dict[str, Operation]]:
    """Return the operations by path and method."""
    found: dict[str, dict[str, Operation]] = {}
    for route in TABLE:
        found.setdefault(route.path, {})[route.method] = route.operation
    return found


def answer(context: Context, name: str, request: ApiRequest) -> Document:
    """Return what the API answers to an operation, done in this process, which has what it takes. Raises
    SkyctlError."""
    if name in _BY_NAME:
        return {"success": True, "data": _BY_NAME[name].work(context, request)}
    _, document = _PANELS[name].handle(context, request)
    return cast(Document, document)


def perform(context: Context, asked: MonitorRequest) -> Document | Page:
    """Run, in the monitor, an operation that `serve` leaves to it. Raises SkyctlError, Refused for any other: a row may
    be written by whoever reaches the database."""
    route = _BY_NAME.get(asked.route)
    if route is None or not route.by_monitor:
        raise Refused(f"the monitor does not do {asked.route}", "is it of the version of `skyctl serve`?")
    return route.work(context, relay.read(asked.text))
