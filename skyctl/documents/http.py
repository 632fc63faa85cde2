"""JSON to model and back, strict: a wrong value is an error that names the field, the value and what is accepted.

Documents are camelCase. Rows that the panel wrote may be snake_case: `capacity` and `load` read both.
"""

import ipaddress
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from skyctl.domain.cluster import Capacity, ClusterStats, HealthPolicy, Load, Registration, Worker
from skyctl.domain.errors import InvalidValue, ValidationError
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import CONTROL, is_plain, storable

MAX_NESTING = 32
LONGEST_NAME = 255
LONGEST_REASON = 1000
LARGEST_METADATA = 16 * 1024
LONGEST_EXPLAINED = 2048
SMALLEST_AMOUNT, SMALLEST_PERCENT = 0.001, 1e-6
MAX_COUNT = 2**31 - 1
CAPACITY_LIMITS = {"cpuCores": 4096, "memoryMb": 64 * 1024 * 1024, "diskGb": 16 * 1024 * 1024}
LARGEST_STORED = 10**15
CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Document = dict[str, Any]


def parse(body: bytes) -> Document:
    """A request's body as a JSON object. Raises ValidationError for broken UTF-8, broken JSON, NaN, or another type."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _unreadable(body) from None
    if not isinstance(document, dict):
        raise ValidationError("the body is not a JSON object", 'send an object: {"field": value, ...}')
    return document


def registration(document: Document) -> Registration:
    """Return what a host says of itself. Raises ValidationError that names the field."""
    capacity = _required(document, "capacity")
    if not isinstance(capacity, dict):
        raise invalid("capacity", capacity, "an object with cpuCores, memoryMb and diskGb")
    return Registration(
        hostname=_text(document, "hostname", 255),
        ip_address=_ip_address(document, "ipAddress"),
        capacity=Capacity(*(_amount(capacity, key, limit) for key, limit in CAPACITY_LIMITS.items())),
        metadata=_metadata(document.get("metadata", {})),
    )


def check_metadata(metadata: Mapping[str, Any]) -> None:
    """Raise ValidationError where a worker's metadata is larger than anybody needs."""
    size = len(json.dumps(dict(metadata)))
    if size > LARGEST_METADATA:
        raise ValidationError(f"metadata: {size} bytes are not accepted", f"at most {LARGEST_METADATA} bytes")


def worker_name(value: str, field: str = "name") -> str:
    """Return a name that an administrator gives. Raises ValidationError that names the field."""
    if isinstance(value, str) and len(value) <= LONGEST_NAME and is_plain(value):
        return value
    raise invalid(field, value, f"1 to {LONGEST_NAME} letters (A to Z), digits, '.', '_' and '-', no '-' first")


def label(field: str, value: str) -> str:
    """A region or a pool; empty for none. Raises ValidationError."""
    return _text({field: value}, field, 255) if value else ""


def reason(value: str, field: str = "reason") -> str:
    """Return why an administrator does something. Raises ValidationError that names the field."""
    return _text({field: value}, field, LONGEST_REASON)


def message(value: str, field: str = "message") -> str:
    """Return a text of several lines that is to be sent. Raises ValidationError that names the field."""
    if not (value.strip() and len(value) <= LONGEST_REASON and storable(value)):
        raise invalid(field, value, f"text of 1 to {LONGEST_REASON} characters")
    return value


def drain_request(body: bytes) -> str | None:
    """Return why, where a request to drain or to undrain says so; its body may be missing. Raises ValidationError."""
    document = parse(body) if body else {}
    return reason(document["reason"]) if "reason" in document else None


def script_request(document: Document) -> tuple[str | None, bool]:
    """Return what a request for an install script says: the name of the worker, if any, and whether plain HTTP is
    accepted. Raises ValidationError."""
    insecure = document.get("insecure", False)
    if not isinstance(insecure, bool):
        raise invalid("insecure", insecure, "true or false")
    return (worker_name(document["name"]) if "name" in document else None), insecure


def whole_number(field: str, value: str | None, default: int, least: int, most: int) -> int:
    """A number of a query string. Raises ValidationError that names the field and its bounds."""
    if value is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or not least <= int(value) <= most:
        raise invalid(field, value, f"a whole number from {least} to {most}")
    return int(value)


def text_filter(field: str, value: str) -> str:
    """A text that is searched for. Raises ValidationError where no stored text could hold it."""
    if not storable(value):
        raise invalid(field, value, "text without NUL or lone surrogates")
    return value


def capacity(stored: object) -> Capacity:
    """A stored capacity, in camelCase or the panel's snake_case; what is missing is 0."""
    return Capacity(
        *(
            _stored_number(stored, camel, snake)
            for camel, snake in (("cpuCores", "cpu_cores"), ("memoryMb", "memory_mb"), ("diskGb", "disk_gb"))
        )
    )


def load(stored: object) -> Load:
    """A stored load, in camelCase or the panel's snake_case; what is missing is 0."""
    return Load(
        _stored_number(stored, "cpuPercent", "cpu_percent"),
        _stored_number(stored, "memoryPercent", "memory_percent"),
        _stored_number(stored, "diskPercent", "disk_percent"),
        int(_stored_number(stored, "containerCount", "container_count")),
    )


def capacity_document(value: Capacity) -> Document:
    """A capacity as it is stored and sent."""
    return {"cpuCores": value.cpu_cores, "memoryMb": value.memory_mb, "diskGb": value.disk_gb}


def load_document(value: Load) -> Document:
    """A load as it is stored and sent."""
    return {
        "cpuPercent": value.cpu_percent,
        "memoryPercent": value.memory_percent,
        "diskPercent": value.disk_percent,
        "containerCount": value.container_count,
    }


def worker_document(worker: Worker) -> Document:
    """A worker as everyone may see it: without its token and its hash."""
    return {
        "id": str(worker.id),
        "name": worker.name,
        "hostname": worker.hostname,
        "ipAddress": worker.ip_address,
        "swarmNodeId": worker.swarm_node_id,
        "swarmNodeClaim": worker.swarm_node_claim,
        "swarmNodeConfirmedAt": moment(worker.swarm_node_confirmed_at),
        "swarmNodeTrouble": worker.swarm_node_trouble,
        "status": worker.status.value,
        "capacity": capacity_document(worker.capacity),
        "currentLoad": {**load_document(worker.load), "containerCount": worker.container_count},
        "recentCpuPercent": list(worker.recent_cpu),
        "engineAwaySince": moment(worker.engine_away_since),
        "nodeDownSince": moment(worker.node_down_since),
        "engineFailedAt": moment(worker.engine_failed_at),
        "lastHeartbeatAt": moment(worker.last_heartbeat_at),
        "statusChangedAt": moment(worker.status_changed_at),
        "drainRequestedAt": moment(worker.drain_requested_at),
        "drainReason": worker.drain_reason,
        "cordonedAt": moment(worker.cordon.since) if worker.cordon else None,
        "cordonReason": worker.cordon.reason if worker.cordon else None,
        "alertsSilencedUntil": moment(worker.alert_silence.until) if worker.alert_silence else None,
        "alertsSilencedReason": worker.alert_silence.reason if worker.alert_silence else None,
        "flappingSince": moment(worker.flapping_since),
        "massFailureId": worker.mass_failure_id,
        "tokenRevokedAt": moment(worker.token_revoked_at),
        "tokenRevokedReason": worker.token_revoked_reason,
        "agentOffered": worker.agent_offered,
        "agentOfferedAt": moment(worker.agent_offered_at),
        "metadata": dict(worker.metadata),
        "createdAt": moment(worker.created_at),
        "updatedAt": moment(worker.updated_at),
    }


def limits_document(policy: HealthPolicy) -> Document:
    """The limits above which a worker is exhausted; that of CPU for so many heartbeats in a row."""
    return {
        "cpuPercent": policy.cpu_percent,
        "cpuHeartbeats": policy.cpu_heartbeats,
        "memoryPercent": policy.memory_percent,
        "diskPercent": policy.disk_percent,
    }


def stats_document(stats: ClusterStats, policy: HealthPolicy) -> Document:
    """The cluster in figures, and the limits of a worker's load. totalLoad is weighted by capacity; averageLoad gives
    each worker the same weight. Where `sampledWorkers` is no null, capacity, load and containers are estimated from so
    many workers."""
    document: Document = {"totalWorkers": stats.total, "sampledWorkers": stats.sampled}
    document |= {f"{status.value}Workers": stats.by_status.get(status, 0) for status in WorkerStatus}
    document["totalCapacity"] = capacity_document(stats.capacity)
    for key, value in (("totalLoad", stats.load), ("averageLoad", stats.plain_load)):
        document[key] = {name: round(figure, 2) for name, figure in load_document(value).items() if "Percent" in name}
    document["totalContainers"] = stats.load.container_count
    document["limits"] = limits_document(policy)
    return document


def moment(at: datetime | None) -> str | None:
    """A time as ISO 8601 with its offset."""
    return at.isoformat() if at else None


def worker_id(text: str) -> UUID | None:
    """A worker's id as it stands in a path, or None where it is none."""
    return UUID(text) if CANONICAL_UUID.fullmatch(text) else None


def percent(document: Document, field: str) -> float:
    """A percentage of a request. Raises ValidationError that names the field."""
    value = document.get(field)
    if (type(value) is float or type(value) is int) and 0 <= value <= 100:
        return value if value >= SMALLEST_PERCENT else 0  # sums and products of what is less leave the range of floats
    raise invalid(field, _required(document, field), "a number from 0 to 100")


def count(document: Document, field: str) -> int:
    """A number of things of a request. Raises ValidationError that names the field."""
    value = document.get(field)
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    raise invalid(field, _required(document, field), f"a whole number from 0 to {MAX_COUNT}")


def invalid(field: str, value: object, accepted: str, part: str = "") -> InvalidValue:
    """Return the error for a value that is not accepted; a list or an object is not shown."""
    if isinstance(value, (list, dict)):
        shown = "a list" if isinstance(value, list) else "an object"
    else:
        shown = ascii(value[:61] if isinstance(value, str) else value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return InvalidValue(field, shown, accepted, part)


def _unreadable(body: bytes) -> ValidationError:
    """Return why a body is not JSON; where only Python could read the value of a field of a small one, the error names
    it: a large one would take long to read, and is read for everybody's heartbeats on one thread."""
    try:
        document = json.loads(body.decode()) if len(body) <= LONGEST_EXPLAINED else None
        if isinstance(document, dict):
            for field, value in document.items():
                _check_storable(field, value, 0)
    except ValidationError as error:
        return error
    except UnicodeDecodeError:
        return ValidationError("the body is not UTF-8", "send JSON encoded as UTF-8")
    except (ValueError, RecursionError):
        pass
    return ValidationError("the body is not JSON", f"send one JSON object, nested at most {MAX_NESTING} levels")


def _required(document: Document, field: str) -> Any:
    try:
        return document[field]
    except KeyError:
        raise ValidationError(f"{field} is missing", f"send {field}") from None


def _amount(capacity: Document, field: str, limit: int) -> float:
    value = capacity.get(field)
    if (type(value) is float or type(value) is int) and SMALLEST_AMOUNT <= value <= limit:
        return value
    if field not in capacity:
        raise ValidationError(f"capacity.{field} is missing", f"send capacity.{field}")
    raise invalid(f"capacity.{field}", value, f"a number over 0, from {SMALLEST_AMOUNT} to {limit}")


def _text(document: Document, field: str, longest: int) -> str:
    value = _required(document, field)
    text = value if isinstance(value, str) else ""
    if text.strip() and len(text) <= longest and storable(text) and not CONTROL.search(text):
        return text
    raise invalid(field, value, f"text of 1 to {longest} characters, without control characters")


def _ip_address(document: Document, field: str) -> str:
    value = _required(document, field)
    try:
        if isinstance(value, str) and "%" not in value:
            return str(ipaddress.ip_address(value))
    except ValueError:
        pass
    raise invalid(field, value, "an IPv4 or IPv6 address")


def _metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid("metadata", value, "an object")
    _check_storable("metadata", value, 0)
    check_metadata(value)
    if value.get("swarmNodeId"):
        _text(value, "swarmNodeId", 255)
    return value


def _check_storable(field: str, value: object, level: int) -> None:
    if level > MAX_NESTING:
        raise ValidationError(f"{field.split('.')[0]} is nested too deeply", f"at most {MAX_NESTING} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_storable(field, key, level)
            _check_storable(f"{field}.{key}", inner, level + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_storable(field, inner, level + 1)
    elif isinstance(value, str) and not storable(value):
        raise invalid(field, value, "text without NUL or lone surrogates")
    elif isinstance(value, float) and not math.isfinite(value):
        raise invalid(field, value, "a finite number")


def _stored_number(stored: object, camel: str, snake: str) -> float:
    value = stored.get(camel, stored.get(snake, 0)) if isinstance(stored, dict) else 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return value if abs(value) <= LARGEST_STORED else 0
