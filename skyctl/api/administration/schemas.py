"""The documents that administration answers, as JSON schemas: those that `-o json` prints."""

from typing import Any

from skyctl.api.schemas import COUNT, TEXT, TIME, Document, json_object, reference
from skyctl.domain.api_tokens import Role
from skyctl.domain.states import DeploymentStatus, MigrationCause, MigrationPolicy, MigrationState, ServiceStatus

MAYBE_TEXT: Document = {"type": ["string", "null"]}
MAYBE_NUMBER: Document = {"type": ["integer", "null"]}
OBJECT: Document = {"type": "object"}
FLAG: Document = {"type": "boolean"}
FOR_ADMINISTRATORS: Document = {"description": "for administrators alone: it may hold a secret"}


def one_of(kind: Any) -> Document:
    """Return the schema of a value of an enumeration."""
    return {"type": "string", "enum": [value.value for value in kind]}


def many(schema: Document) -> Document:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


def maybe(schema: Document) -> Document:
    """Return the schema of what may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


SCHEMAS: Document = {
    "Migration": json_object(
        id=TEXT,
        serviceId=MAYBE_TEXT,
        swarmServiceId=MAYBE_TEXT,
        serviceName=TEXT,
        organizationId=MAYBE_TEXT,
        cause=one_of(MigrationCause),
        state=one_of(MigrationState),
        reason=TEXT,
        sourceWorkerId=MAYBE_TEXT,
        sourceWorkerName=MAYBE_TEXT,
        targetWorkerId=MAYBE_TEXT,
        targetWorkerName=MAYBE_TEXT,
        attempts=COUNT,
        cancelledBy=MAYBE_TEXT,
        createdAt=TIME,
        startedAt=TIME,
        deadlineAt=TIME,
        nextAttemptAt=TIME,
        finishedAt=TIME,
        sourceStoppedAt=TIME,
    ),
    "Deployment": json_object(
        id=TEXT,
        workerId=MAYBE_TEXT,
        workerName=MAYBE_TEXT,
        swarmServiceId=MAYBE_TEXT,
        containerId=MAYBE_TEXT,
        image=TEXT,
        digest=MAYBE_TEXT,
        status=one_of(DeploymentStatus),
        error=MAYBE_TEXT,
        deployedAt=TIME,
        stoppedAt=TIME,
        createdAt=TIME,
    ),
    "Service": json_object(
        "labels",
        "command",
        id=TEXT,
        name=TEXT,
        slug=TEXT,
        organizationId=TEXT,
        organization=TEXT,
        status=one_of(ServiceStatus),
        image=TEXT,
        limits=OBJECT,
        variables=many(TEXT) | {"description": "the names alone: their values may be secrets"},
        ports=many(TEXT),
        labels=OBJECT | FOR_ADMINISTRATORS,
        command=many(TEXT) | FOR_ADMINISTRATORS,
        replicas=COUNT,
        region=MAYBE_TEXT,
        pool=MAYBE_TEXT,
        adopted=FLAG,
        downSince=TIME,
        downReason=MAYBE_TEXT,
        endingReason=MAYBE_TEXT,
        deployment=maybe(reference("Deployment")),
        createdAt=TIME,
        updatedAt=TIME,
    ),
    "SwarmService": json_object(
        "labels",
        name=TEXT,
        swarmServiceId=TEXT,
        managed=FLAG,
        mode=TEXT,
        wanted=COUNT,
        running=COUNT,
        places=many(json_object(workerName=MAYBE_TEXT, hostname=TEXT, containers=COUNT)),
        image=TEXT,
        ports=many(TEXT),
        mounts=many(TEXT),
        stack=MAYBE_TEXT,
        labels=OBJECT | FOR_ADMINISTRATORS,
    ),
    "Event": json_object(
        seq=COUNT | {"maximum": 2**63 - 1},
        at=TIME,
        kind=TEXT,
        workerId=MAYBE_TEXT,
        workerName=MAYBE_TEXT,
        actor=TEXT,
        fromStatus=MAYBE_TEXT,
        toStatus=MAYBE_TEXT,
        reason=TEXT,
        term=MAYBE_NUMBER,
        details=OBJECT,
    ),
    "Alert": json_object(
        id=COUNT | {"maximum": 2**63 - 1},
        at=TIME,
        kind=TEXT,
        workerId=MAYBE_TEXT,
        title=TEXT,
        message=TEXT,
        metadata=OBJECT,
        deliveries=json_object(delivered=COUNT, waiting=COUNT, givenUp=COUNT),
    ),
    "Organization": json_object(id=TEXT, name=TEXT, slug=TEXT, policy=one_of(MigrationPolicy)),
    "Token": json_object(
        id=TEXT,
        name=TEXT,
        role=one_of(Role),
        state={"type": "string", "enum": ["good", "expired", "revoked"]},
        madeBy=TEXT,
        madeAt=TIME,
        expiresAt=TIME,
        lastUsedAt=TIME,
        lastUsedFrom=MAYBE_TEXT,
        revokedAt=TIME,
        revokedBy=MAYBE_TEXT,
    ),
    "Drain": json_object(
        workerId=TEXT,
        workerName=TEXT,
        requestedAt=TIME,
        deadlineAt=TIME,
        finishedAt=TIME,
        moved=COUNT,
        underWay=COUNT,
        waiting=COUNT,
        left=many(TEXT),
        others=many(TEXT),
        othersCount=COUNT,
        unknown=MAYBE_TEXT,
        reasons=many(TEXT),
        over=FLAG | {"description": "nothing more will be moved off"},
        empty=FLAG | {"description": "it is over and nothing is left, for all that can be known"},
    ),
}
