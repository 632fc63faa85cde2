"""The reasons of a worker's status as they are printed. No I/O."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from skyctl.cli.views import formats, workers, workloads
from skyctl.documents.http import Document
from skyctl.domain.text import printable, reference

MOST_NAMES = 10


def diagnosis(document: Document) -> list[Any]:
    """Everything that bears on a worker's status, in the order of a person's questions; then its containers, and why
    those that are to be moved have not been."""
    moves = _moves(document["migrations"], document["worker"]["id"], document["readAt"])
    return [formats.details([*_rows(document), *_containers(document["containers"]), *moves])]


def _containers(containers: Sequence[Document]) -> Iterator[tuple[str, Any]]:
    names = [service["name"] for service in containers]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    yield "Containers", f"{len(names)}: {', '.join(names[:MOST_NAMES])}{more}" if names else "none of ours"


def _moves(moves: Sequence[Document], worker_id: str, now: str) -> Iterator[tuple[str, Any]]:
    for number, move in enumerate(moves):
        away = move["sourceWorkerId"] == worker_id
        other = move["targetWorkerName"] if away else move["sourceWorkerName"]
        way = f"{'to' if away else 'from'} {printable(other)}, " if other else ""
        why = workloads.reason(move, now)
        state = workloads.state_text(move["state"])
        line = Text.assemble(f"{printable(move['serviceName'])}: {way}", state, f": {why}" if why else "")
        yield "Moving" if number == 0 else "", line


def _rows(document: Document) -> Iterator[tuple[str, Any]]:
    worker, facts, now = document["worker"], document["facts"], document["readAt"]
    decided_by = document["decidedBy"]
    yield "Worker", f"{worker['name']} ({worker['id']})"
    yield "Status", _status(worker, now)
    yield "Decided", _decision(decided_by, now) if decided_by else _undecided(worker)
    if decided_by:
        yield from (("  sample", f"{key}: {_plain(value)}") for key, value in decided_by["details"].items())
    yield "Now", _conclusion(document)
    yield "  heartbeat", _heartbeat(facts, now)
    yield from _loads(facts)
    yield "  drain", _drain(worker, facts, now)
    if worker["swarmNodeTrouble"]:
        remedy = f"where it is this worker's node all the same: skyctl workers confirm {worker['id']}"
        yield "  swarm node", f"{workers.node_text(worker)}; nothing is placed on it; {remedy}"
    yield "  flapping", _since(worker["flappingSince"], now, "takes nothing new until it was quiet for a while")
    if worker["tokenRevokedAt"]:
        again = f"skyctl workers install-script --worker {reference(worker['name'], worker['id'])}"
        revoked = f"revoked {workers.revocation(worker, now)}: its heartbeats are refused"
        yield "  token", f"{revoked}; to let its host in again: {again}"
    if upgrade := workers.upgrade_text(worker, now):
        yield "  agent", printable(upgrade)
    if worker["engineAwaySince"] or worker["nodeDownSince"]:
        yield "  engine", printable(workers.engine_text(worker, now))
    if facts["stoppedAt"]:
        yield "  stopped", f"its agent was stopped on purpose {_when(facts['stoppedAt'], now)}"
    if facts["massFailure"]:
        yield "  mass failure", _mass_failure(facts["massFailure"], now)
    yield from (("Would change" if n == 0 else "", change) for n, change in enumerate(document["wouldChange"]))


def _status(worker: Document, now: str) -> Text:
    since = f", since {_when(worker['statusChangedAt'], now)}" if worker["statusChangedAt"] else ""
    return Text.assemble(workers.standing_text(worker), since)


def _decision(event: Document, now: str) -> Text:
    states = [formats.status_text(status) for status in (event["fromStatus"], event["toStatus"]) if status]
    term = f", term {event['term']}" if event["term"] else ""
    by = f" ({_when(event['at'], now)}, by {printable(event['actor'])}{term}, event {event['seq']})"
    return Text.assemble(Text(" to ").join(states), f": {printable(event['reason'])}", (by, "dim"))


def _undecided(worker: Document) -> str:
    if worker["statusChangedAt"]:
        return "before the log began"
    return "by no monitor yet: it is as it was invited, or as the panel wrote it"


def _conclusion(document: Document) -> Text:
    verdict, passed_at = document["verdict"], document["monitorSeenAt"]
    text = Text.assemble(formats.status_text(verdict["status"]), f": {printable(verdict['reason'])}")
    if document["settled"]:
        return text
    looked = (
        f"its last pass was {formats.ago(passed_at, document['readAt'])}"
        if passed_at
        else "none has run yet: run `skyctl monitor`"
    )
    return text.append(f" (but the monitor has not looked yet; {looked})", style="yellow")


def _heartbeat(facts: Document, now: str) -> str:
    heard_at, silence, deaf = facts["lastHeartbeatAt"], facts["silenceSeconds"], facts["outageSeconds"]
    if heard_at is None or silence is None:
        return "never"
    silent = f"silent for {silence:.0f} s, of at most {facts['timeoutSeconds']:.0f} s"
    ours = f", without {deaf:.0f} s in which no `serve` could hear it" if deaf else ""
    return f"{_when(heard_at, now)}: {silent}{ours}"


def _loads(facts: Document) -> Iterator[tuple[str, Any]]:
    load, limits = facts["load"], facts["limits"]
    if facts["lastHeartbeatAt"] is None:
        return
    for name, resource in zip(("  CPU", "  memory", "  disk"), formats.RESOURCES, strict=True):
        percent, limit = load[resource], limits[resource]
        verb, style = ("above", "red") if percent > limit else ("within", "green")
        yield name, Text.assemble((f"{percent:g} %", style), f", {verb} its limit of {limit:g} %")


def _drain(worker: Document, facts: Document, now: str) -> str:
    asked_at, why = worker["drainRequestedAt"], f": {worker['drainReason']}" if worker["drainReason"] else ""
    if facts["undrainedAt"]:
        return f"taken back {_when(facts['undrainedAt'], now)}"
    return f"asked {_when(asked_at, now)}{why}" if asked_at else "not asked"


def _since(at: str | None, now: str, meaning: str) -> str:
    return f"since {_when(at, now)}: {meaning}" if at else "no"


def _mass_failure(failure: Document, now: str) -> str:
    when = _when(failure["detectedAt"], now)
    what = f"{failure['silent']} of {failure['schedulable']} workers failed at once {when}"
    if failure["liftedAt"]:
        return f"{what}; lifted {_when(failure['liftedAt'], now)}"
    return f"{what}; nothing is moved off them automatically until they return"


def _when(at: str | None, now: str) -> str:
    return f"{formats.ago(at, now)} ({formats.stamp(at)})" if at else "-"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
