"""The JSON that the API takes and gives, as JSON schemas."""

from typing import Any

from skyctl.documents.heartbeats import LONGEST_PATH, MOST_VOLUMES
from skyctl.documents.http import CAPACITY_LIMITS, LONGEST_REASON, MAX_COUNT, SMALLEST_AMOUNT
from skyctl.domain.text import PLAIN

Document = dict[str, Any]


def reference(name: str) -> Document:
    """Return a reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_object(*optional: str, **properties: Document) -> Document:
    """Return the schema of an object with these properties, all of them required except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def success(**properties: Document) -> Document:
    """Return the schema of an answer that says success, with these properties."""
    return json_object(success={"const": True}, **properties)


TEXT: Document = {"type": "string"}
TIME: Document = {"type": ["string", "null"], "format": "date-time"}
PERCENT: Document = {"type": "number", "minimum": 0, "maximum": 100}
COUNT: Document = {"type": "integer", "minimum": 0, "maximum": MAX_COUNT}
AMOUNT: Document = {"type": "number", "minimum": 0}
STATUS: Document = {"type": "string", "enum": ["pending", "active", "unhealthy", "draining", "offline"]}
NAME: Document = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"[^\s\u0000]"}
PLAIN_NAME: Document = {"type": "string", "maxLength": 255, "pattern": f"^{PLAIN.pattern}$"}
METADATA = (
    "whatever the host says of itself; `reportedHostname` is a hostname that is not letters, digits, `.`, `-` and `_` "
    "alone, which `worker-ID` stands in for. `clock`, what its clock shows (ISO 8601 with offset), is stored as "
    "clockOffsetSeconds: by how many seconds it is ahead of the database's; one that cannot be read is ignored. "
    "`machineId` binds the token to this machine, `bootId` and `instanceId` tell a reboot from a copy of its disk, "
    "`takesTokens: true` says that a newToken is taken, `releaseKey` by which key an agent that is offered must be "
    "signed, `plainHttp: true` that neither is taken, since anybody on the way could send one"
)
PERCENTS = json_object(cpuPercent=PERCENT, memoryPercent=PERCENT, diskPercent=PERCENT)

SCHEMAS: Document = {
    "Error": json_object(success={"const": False}, error=json_object(code=TEXT, message=TEXT)),
    "Heartbeat": json_object(
        "engineAnswers",
        "engineSilentSeconds",
        "imageVolumes",
        cpuPercent=PERCENT,
        memoryPercent=PERCENT,
        diskPercent=PERCENT,
        containerCount=COUNT,
        engineAnswers={"type": "boolean", "description": "whether the worker's engine does; unsaid: it does"},
        engineSilentSeconds={
            "type": "number",
            "minimum": 0,
            "description": "where it does not: for how long the question has been left without an answer",
        },
        imageVolumes={
            "type": "object",
            "description": "where containers of the swarm's services have volumes without a name: paths, by the "
            f"service's id; at most {MOST_VOLUMES} in all. Unsaid: what was said last stands",
            "maxProperties": MOST_VOLUMES,
            "propertyNames": {"pattern": "^[0-9A-Za-z]{1,64}$"},
            "additionalProperties": {
                "type": "array",
                "items": {"type": "string", "maxLength": LONGEST_PATH, "pattern": "^/[^\\x00-\\x1f\\x7f]*$"},
            },
        },
    ),
    "Registration": json_object(
        "metadata",
        hostname=NAME,
        ipAddress={"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
        capacity=json_object(
            **{
                field: {"type": "number", "minimum": SMALLEST_AMOUNT, "maximum": limit}
                for field, limit in CAPACITY_LIMITS.items()
            }
        ),
        metadata={"type": "object", "description": METADATA},
    ),
    "Worker": json_object(
        id={"type": "string", "format": "uuid"},
        name=TEXT,
        hostname=TEXT,
        ipAddress=TEXT,
        swarmNodeId={"type": ["string", "null"]},
        swarmNodeClaim={"type": ["string", "null"]},
        swarmNodeConfirmedAt=TIME,
        swarmNodeTrouble={"type": ["string", "null"]},
        status=STATUS,
        capacity=json_object(cpuCores=AMOUNT, memoryMb=AMOUNT, diskGb=AMOUNT),
        currentLoad=json_object(
            cpuPercent=PERCENT,
            memoryPercent=PERCENT,
            diskPercent=PERCENT,
            containerCount=COUNT | {"type": ["integer", "null"], "description": "null while the engine does not say"},
        ),
        recentCpuPercent={
            "type": "array",
            "items": PERCENT,
            "description": "of the last heartbeats, the latest first; empty where not known",
        },
        engineAwaySince=TIME,
        nodeDownSince=TIME,
        engineFailedAt=TIME,
        lastHeartbeatAt=TIME,
        statusChangedAt=TIME,
        drainRequestedAt=TIME,
        drainReason={"type": ["string", "null"]},
        cordonedAt=TIME,
        cordonReason={"type": ["string", "null"]},
        alertsSilencedUntil=TIME,
        alertsSilencedReason={"type": ["string", "null"]},
        flappingSince=TIME,
        massFailureId={"type": ["integer", "null"]},
        tokenRevokedAt=TIME,
        tokenRevokedReason={"type": ["string", "null"]},
        agentOffered={"type": ["string", "null"]},
        agentOfferedAt=TIME,
        metadata={"type": "object"},
        createdAt=TIME,
        updatedAt=TIME,
    ),
    "Stats": json_object(
        totalWorkers=COUNT,
        sampledWorkers={"type": ["integer", "null"], "minimum": 0},
        pendingWorkers=COUNT,
        activeWorkers=COUNT,
        unhealthyWorkers=COUNT,
        drainingWorkers=COUNT,
        offlineWorkers=COUNT,
        totalCapacity=json_object(cpuCores=AMOUNT, memoryMb=AMOUNT, diskGb=AMOUNT),
        totalLoad=PERCENTS,
        averageLoad=PERCENTS,
        totalContainers={"type": "integer", "minimum": 0},
        limits=reference("Limits"),
    ),
    "Limits": json_object(cpuPercent=PERCENT, cpuHeartbeats=COUNT, memoryPercent=PERCENT, diskPercent=PERCENT),
}

PAGINATION = json_object(
    total=COUNT, totalIsLeast={"type": "boolean"}, next={"type": ["string", "null"]}, limit=COUNT, offset=COUNT
)
SCRIPT_REQUEST = json_object("name", "insecure", name=PLAIN_NAME, insecure={"type": "boolean"})
DRAIN_REQUEST = json_object("reason", reason=NAME | {"maxLength": LONGEST_REASON})
LINK: Document = {
    "type": "string",
    "description": "gives the script once, with a new token: for `curl -sS LINK | sh`; "
    "the token beside it is then replaced",
}
SCRIPT = success(data=json_object(workerId=TEXT, script=TEXT, token=TEXT, link=LINK))
MESSAGE = success(message=TEXT)
NEW_TOKEN: Document = {
    "type": "string",
    "description": "the token to use from now on; this one is good until that was used",
}
OFFER = json_object(sha256=TEXT, version=TEXT, size=COUNT, offeredAt=TEXT, signature=TEXT)
HEARTBEAT_ANSWER = json_object(
    "newToken",
    "agent",
    success={"const": True},
    message=TEXT,
    nextHeartbeatSeconds={"type": "number"},
    newToken=NEW_TOKEN,
    agent=OFFER,
)
SEEN: dict[str, Document] = {"readAt": TIME, "limits": reference("Limits")}
WORKER_DETAILS = json_object(**SEEN, drain={"anyOf": [reference("Drain"), {"type": "null"}]})
WORKER_ANSWER = success(data={"allOf": [reference("Worker"), WORKER_DETAILS]})
REGISTRATION_ANSWER = json_object("newToken", success={"const": True}, data=reference("Worker"), newToken=NEW_TOKEN)
MONITOR = json_object(leads={"type": "boolean"}, lastPassAt=TIME, late={"type": "boolean"})
PAGE = success(data={"type": "array", "items": reference("Worker")}, pagination=PAGINATION, **SEEN, monitor=MONITOR)
