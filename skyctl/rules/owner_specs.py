"""A service's specification as its owner left it, and what a move of ours changes of it for a while.

A service that nobody of us pinned is moved off a node by a constraint that excludes this node: the swarm starts what
ran there elsewhere, first or after, and touches no other of its containers. Beside the constraint, a move sets how the
swarm is to update. Both are given back when the move is over; what the owner changed meanwhile is his, and stays.
A specification is a document of Docker's API, of which each field is kept, known here or not.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from skyctl.domain.engine import Document

START_FIRST, STOP_FIRST = "start-first", "stop-first"
# Nobody reads it: a service that is changed in any way is looked at again by the swarm.
LOOK_AGAIN_LABEL = "skyctl.looked-at-again"
OUR_LABELS = "skypanel."
_EXCLUDED = re.compile(r"\s*node\.id\s*!=\s*(\S+)\s*", re.IGNORECASE)
_PINNED = re.compile(r"\s*node\.id\s*==\s*(\S+)\s*", re.IGNORECASE)
# The nanoseconds between two containers of a move: by them an update of ours is known, for nobody else writes that.
MARK = 1


def excluding(spec: Document, node_id: str, order: str) -> Document:
    """The service kept off a node, in this order: one container after the other, until one fails."""
    constraints = _constraints(spec)
    if node_id not in excluded(spec):
        constraints = [*constraints, f"node.id!={node_id}"]
    return {**_constrained(spec, constraints), "UpdateConfig": _moving(spec.get("UpdateConfig"), order)}


def including(spec: Document, node_id: str) -> Document:
    """The service no longer kept off a node: what still runs there stays."""
    return _constrained(spec, [each for each in _constraints(spec) if _node(_EXCLUDED, each) != node_id])


def excluded(spec: Mapping[str, Any]) -> list[str]:
    """The nodes, by their ids, that the service is kept off."""
    return excluded_by(_constraints(spec))


def excluded_by(constraints: Iterable[str]) -> list[str]:
    """The nodes that these constraints exclude one by one."""
    return [node for each in constraints if (node := _node(_EXCLUDED, each))]


def given_back(spec: Document, owners: Document, ours: Collection[str]) -> Document:
    """The service with what moves changed as it was in the owner's specification: off none of `ours` that he did not
    exclude himself, updated as he said, without a label that means nothing. What the owner changed meanwhile is his: of
    how to update, each part that is not as a move leaves it, and all of it where the mark of moves is gone."""
    for node_id in set(ours) - set(excluded(owners)):
        spec = including(spec, node_id)
    spec = _placed_as(spec, owners)
    now, was = spec.get("UpdateConfig") or {}, owners.get("UpdateConfig") or {}
    if now.get("Delay") == MARK:
        left = {name: value for name, value in now.items() if not _is_of_moves(name, value)}
        back = {**left, **{name: was[name] for name in now if name in was and name not in left}}
        spec = _with(spec, "UpdateConfig", owners.get("UpdateConfig") if _said(back) == _said(was) else back)
    labels = spec.get("Labels") or {}
    if LOOK_AGAIN_LABEL in labels and LOOK_AGAIN_LABEL not in (owners.get("Labels") or {}):
        others = {name: value for name, value in labels.items() if name != LOOK_AGAIN_LABEL}
        spec = _with(spec, "Labels", others or owners.get("Labels"))
    return spec


def adopted(spec: Document, labels: Mapping[str, str], node_id: str | None) -> Document:
    """The service with our labels, pinned to a node where one is given; nothing of it is made anew."""
    spec = {**spec, "Labels": {**(spec.get("Labels") or {}), **labels}}
    return spec if node_id is None else _constrained(spec, [*_unpinned(spec), f"node.id=={node_id}"])


def released(spec: Document, owners: Document, ours: Collection[str]) -> Document:
    """The service without anything of ours: as it would be if its owner alone had changed it."""
    spec = given_back(spec, owners, ours)
    pins = [each for each in _constraints(owners) if _node(_PINNED, each)]
    kept = owners.get("Labels")
    labels = {
        name: value
        for name, value in (spec.get("Labels") or {}).items()
        if not name.startswith(OUR_LABELS) or name in (kept or {})
    }
    spec = _placed_as(_constrained(spec, [*_unpinned(spec), *pins]), owners)
    return _with(spec, "Labels", labels or kept)


def bare(spec: Document) -> Document:
    """A service that we deployed, without pin and labels of ours: what is left of it where nobody manages it."""
    labels = {name: value for name, value in (spec.get("Labels") or {}).items() if not name.startswith(OUR_LABELS)}
    return _with(_constrained(spec, _unpinned(spec)), "Labels", labels)


def is_changed(spec: Document, owners: Document, ours: Collection[str]) -> bool:
    """Tell whether a specification differs from the owner's by more than what moves change, and the swarm itself."""
    return _essence(given_back(spec, owners, ours)) != _essence(owners)


def rolled_back(spec: Document, former: Document) -> Document:
    """The owner's former specification, where the service is pinned now and with the labels by which it is known."""
    pins = [each for each in _constraints(spec) if _node(_PINNED, each)]
    back = _constrained(former, [*_unpinned(former), *pins] if pins else _constraints(former))
    ours = {name: value for name, value in (spec.get("Labels") or {}).items() if name.startswith(OUR_LABELS)}
    return {**back, "Labels": {**(back.get("Labels") or {}), **ours}} if ours else back


def of_replicas(spec: Document, replicas: int) -> Document:
    """The service with so many containers."""
    return {**spec, "Mode": {**spec["Mode"], "Replicated": {**spec["Mode"]["Replicated"], "Replicas": replicas}}}


def restarted(spec: Document) -> Document:
    """The service with containers that are made anew, in its own order."""
    template = spec["TaskTemplate"]
    return {**spec, "TaskTemplate": {**template, "ForceUpdate": template.get("ForceUpdate", 0) + 1}}


def scaled(spec: Document, replicas: int, labels: Mapping[str, str]) -> Document:
    """The service with so many containers and these labels, and pinned to no node: with one container more or less,
    none of the others is made anew."""
    unpinned = _constrained(spec, _unpinned(spec))
    return of_replicas({**unpinned, "Labels": {**(spec.get("Labels") or {}), **labels}}, replicas)


def _moving(update: Document | None, order: str) -> Document:
    return {**(update or {}), "Parallelism": 1, "Order": order, "FailureAction": "pause", "Delay": MARK}


def _is_of_moves(name: str, value: object) -> bool:
    orders = (START_FIRST, STOP_FIRST) if name == "Order" else (_moving(None, "").get(name),)
    return name in _moving(None, "") and value in orders


def _essence(spec: Document) -> Document:
    """What of a specification is its owner's alone: neither where it is pinned nor our labels."""
    labels = {name: value for name, value in (spec.get("Labels") or {}).items() if not name.startswith(OUR_LABELS)}
    template = {name: value for name, value in spec["TaskTemplate"].items() if name not in ("ForceUpdate", "Placement")}
    placement = _with(_said(spec["TaskTemplate"].get("Placement")), "Constraints", None)
    update = _said(spec.get("UpdateConfig"))
    rest = {name: value for name, value in spec.items() if name not in ("TaskTemplate", "Labels", "UpdateConfig")}
    own = {"template": template, "placement": placement, "labels": labels, "update": update}
    return {**rest, **own, "constraints": sorted(_unpinned(spec))}


def _constraints(spec: Mapping[str, Any]) -> list[str]:
    return list((spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or [])


def _unpinned(spec: Mapping[str, Any]) -> list[str]:
    return [each for each in _constraints(spec) if not _node(_PINNED, each)]


def _constrained(spec: Document, constraints: list[str]) -> Document:
    """The service with these constraints; nothing is written where it had none and is to have none."""
    template = spec["TaskTemplate"]
    if constraints == _constraints(spec):
        return spec
    placement = _with(template.get("Placement") or {}, "Constraints", constraints or None)
    return {**spec, "TaskTemplate": _with(template, "Placement", placement)}


def _placed_as(spec: Document, owners: Document) -> Document:
    """The service with its placement written as its owner does, where that says the same: the engine tells nothing from
    nothing. One that had none has an empty one from then on: what was started meanwhile has one, and engines have ended
    over a service without."""
    template, placement = spec["TaskTemplate"], owners["TaskTemplate"].get("Placement") or {}
    if "Placement" not in template or _said(template["Placement"]) != _said(placement):
        return spec
    return {**spec, "TaskTemplate": _with(template, "Placement", placement)}


def _said(document: Document | None) -> Document:
    return {name: value for name, value in (document or {}).items() if value}


def _with(document: Document, name: str, value: Any) -> Document:
    """The document with this value; without the name where it is None."""
    if value is None:
        return {each: kept for each, kept in document.items() if each != name}
    return {**document, name: value}


def _node(pattern: re.Pattern[str], constraint: str) -> str | None:
    match = pattern.fullmatch(constraint)
    return match[1] if match else None
