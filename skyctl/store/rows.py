"""From rows of workers to the model; what is asked of rows of several kinds."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from skyctl.documents import http
from skyctl.domain.cluster import Load, Worker
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import PLAIN
from skyctl.domain.wishes import AlertSilence, Cordon
from skyctl.store.tables import workers

STATUS: sa.ColumnElement[str] = sa.func.coalesce(workers.c.status, WorkerStatus.PENDING.value)
# the one that people know, whatever the panel's API has written since
KNOWN_STATUS: sa.ColumnElement[str] = sa.func.coalesce(workers.c.concluded_status, STATUS)
# a node that is the worker's, and not one that it only claims
CONFIRMED: sa.ColumnElement[bool] = workers.c.swarm_node_id == workers.c.swarm_node_confirmed
_HIDDEN = (
    "auth_token_hash",
    "auth_token_expires_at",
    "cpu_percent",
    "memory_percent",
    "disk_percent",
    "drain_max_parallel",
    "drain_force",
    "drain_keep_global",
    "drain_move_local_data",
    "drain_by_swarm",
    "node_paused_at",
    "drain_containers",
    "drain_counted_at",
    "auth_token_issued_at",
    "auth_token_key",
    "next_token_hash",
    "next_token_issued_at",
    "next_token_key",
    "invitation_hash",
    "invitation_expires_at",
    "machine_id",
    "boot_id",
    "instance_id",
    "bound_at",
    "rivals",
    "registered_from",
    "swarm_node_allowed",
    "swarm_node_refuted_at",
    "image_volumes",
)
COLUMNS = [column for column in workers.c if column.name not in _HIDDEN]

# whoever had a node and says that it has none any more
HAS_LEFT: sa.ColumnElement[bool] = sa.and_(
    workers.c.swarm_node_confirmed.is_not(None),
    workers.c.swarm_node_id.is_(None),
    workers.c.swarm_node_claim.is_(None),
)


class _Ids(sa.types.UserDefinedType[Iterable[UUID]]):
    """An array of ids, which goes as one text: the driver takes four times as long to write down each."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return its name in SQL."""
        return "uuid[]"

    def bind_processor(self, _dialect: object) -> Callable[[Any], str]:
        """Return how ids are written down."""
        return lambda ids: "{" + ",".join([each.hex for each in ids]) + "}"


def array_of(ids: Iterable[UUID]) -> sa.ColumnElement[Iterable[UUID]]:
    """These ids as one array, however many they are."""
    return sa.cast(sa.literal(list(ids), _Ids()), _Ids())


def among(column: sa.Column[Any], ids: Iterable[UUID]) -> sa.ColumnElement[bool]:
    """Tell whether the column is one of the ids, however many they are."""
    return column == sa.any_(array_of(ids))


class _TID(sa.types.UserDefinedType[str]):
    """The place of a row: page and number."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return its name in SQL."""
        return "tid"


def on_pages(pages: range) -> list[sa.ColumnElement[bool]]:
    """Tell whether a worker is on these pages of its table."""
    place: sa.ColumnElement[str] = sa.literal_column("container_workers.ctid", _TID())
    return [place >= sa.cast(f"({pages.start},0)", _TID()), place < sa.cast(f"({pages.stop},0)", _TID())]


def among_texts(column: sa.Column[Any], texts: Iterable[str]) -> sa.ColumnElement[bool]:
    """Tell whether the column is one of the texts, however many they are: they go as one array."""
    return column == sa.any_(sa.cast(list(texts), sa.ARRAY(sa.Text())))


# what is searched by its beginning, as their indexes have it
SEARCHED_NAME: sa.ColumnElement[str] = sa.func.lower(workers.c.name, type_=sa.Text()).collate("C")
SEARCHED_HOSTNAME: sa.ColumnElement[str] = sa.func.lower(workers.c.hostname, type_=sa.Text()).collate("C")
SEARCHED_ADDRESS: sa.ColumnElement[str] = sa.func.host(workers.c.ip_address, type_=sa.Text()).collate("C")
# names that nobody can type as they are, as in the index of these
IS_ODD: sa.ColumnElement[bool] = sa.literal_column(f"container_workers.name !~ '^{PLAIN.pattern}$'", sa.Boolean())


def begins(searched: sa.ColumnElement[str], prefix: str) -> sa.ColumnElement[bool]:
    """Tell whether what is searched begins so, in whatever case, by its index."""
    return sa.func.starts_with(searched, sa.func.lower(prefix), type_=sa.Boolean())


def reference(name: sa.Column[str], identity: sa.Column[UUID]) -> sa.ColumnElement[str]:
    """The name where that is plain, else the id, as text."""
    return sa.case((name.regexp_match(f"^{PLAIN.pattern}$"), name), else_=sa.cast(identity, sa.Text))


def beginning(column: sa.Column[Any], text: str) -> sa.ColumnElement[bool] | None:
    """Tell whether an id, as it is written, begins so: as a range, by the index of the ids; None where none can."""
    pattern = "00000000-0000-0000-0000-000000000000"
    begins = text.lower()
    is_part = len(begins) <= len(pattern) and all(
        (character == "-") if expected == "-" else character in "0123456789abcdef"
        for character, expected in zip(begins, pattern, strict=False)
    )
    if not is_part:
        return None
    rest = pattern[len(begins) :]
    return column.between(UUID(begins + rest), UUID(begins + rest.replace("0", "f")))


def _object(document: Any) -> dict[str, Any]:
    return document if isinstance(document, dict) else {}


def _silence(row: Any) -> AlertSilence | None:
    until = row.alerts_silenced_until
    return AlertSilence(until, row.alerts_silenced_reason) if until else None


def known_cpu(stored: Sequence[float] | None, load: Load) -> Sequence[float]:
    """The CPU of the last heartbeats; none where another has come since, of which only the load is known."""
    return stored if stored and stored[0] == load.cpu_percent else ()


def read(row: Any) -> Worker:
    """A worker of a row with `COLUMNS`."""
    load = http.load(row.current_load)
    is_confirmed = row.swarm_node_id is not None and row.swarm_node_id == row.swarm_node_confirmed
    return Worker(
        id=row.id,
        name=row.name,
        hostname=row.hostname,
        ip_address=str(row.ip_address),
        status=WorkerStatus(row.status or WorkerStatus.PENDING),
        capacity=http.capacity(row.capacity),
        load=load,
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_heartbeat_at=row.last_heartbeat_at,
        swarm_node_id=row.swarm_node_id,
        drain_requested_at=row.drain_requested_at,
        drain_reason=row.drain_reason,
        undrained_at=row.undrained_at,
        drain_deadline_at=row.drain_deadline_at,
        drain_finished_at=row.drain_finished_at,
        cordon=Cordon(row.cordoned_at, row.cordon_reason) if row.cordoned_at else None,
        alert_silence=_silence(row),
        stopped_at=row.stopped_at,
        status_changed_at=row.status_changed_at,
        concluded_status=WorkerStatus(row.concluded_status) if row.concluded_status else None,
        flapping_since=row.flapping_since,
        mass_failure_id=row.mass_failure_id,
        token_revoked_at=row.token_revoked_at,
        token_revoked_reason=row.token_revoked_reason,
        agent_offered=row.agent_offered,
        agent_offered_at=row.agent_offered_at,
        agent_signature=row.agent_signature,
        swarm_node_claim=row.swarm_node_claim,
        swarm_node_confirmed_at=row.swarm_node_confirmed_at if is_confirmed else None,
        swarm_node_trouble=row.swarm_node_trouble,
        engine_away_since=row.engine_away_since,
        engine_away_seen_at=row.engine_away_seen_at,
        node_down_since=row.node_down_since,
        node_down_seen_at=row.node_down_seen_at,
        engine_failed_at=row.engine_failed_at,
        recent_cpu=known_cpu(row.recent_cpu, load),
        metadata=_object(row.metadata),
    )
