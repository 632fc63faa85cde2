"""What the reference lists is what the program has. With UPDATE_DOCUMENTS=1 the pages are written again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from skyctl.api import openapi
from skyctl.api.app import ROUTES
from skyctl.domain.errors import ExitCode
from skyctl.domain.event_details import Details
from skyctl.domain.events import EventKind

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
JSON_TYPES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}

EVENTS = """# Events

Made from `skyctl/domain/events.py`. What happens is kept in the table `worker_events`, in order; `skyctl events`
shows it, with `-o json` the details as well. What people did is in the activity log, too: its `event_type` is `worker.`
and the kind.

"""


def json_type(annotation: Any) -> str:
    """An annotation of details in words."""
    if annotation in JSON_TYPES:
        return JSON_TYPES[annotation]
    if is_typeddict(annotation):
        return f"an object ({', '.join(fields(annotation))})"
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if get_origin(annotation) is list:
        return f"a list, each {json_type(arguments[0])}"
    if get_origin(annotation) is dict:
        return f"an object, each value {json_type(arguments[1])}"
    return f"{json_type(arguments[0])}, or null"


def fields(shape: Any) -> list[str]:
    return [
        f"`{key}`{' (not always)' * (key in shape.__optional_keys__)}: {json_type(hint)}"
        for key, hint in get_type_hints(shape).items()
    ]


def events_page() -> str:
    shapes = dict.fromkeys(kind.details for kind in EventKind if kind.details is not Details)
    links = {shape: f"[{shape.__name__}](#{shape.__name__.lower()})" for shape in shapes}
    rows = [f"| `{kind}` | {kind.meaning} | {links.get(kind.details, '')} |\n" for kind in EventKind]
    chapters = [
        f"\n### {shape.__name__}\n\n{' '.join((shape.__doc__ or '').split())}\n\n"
        + "".join(f"- {field}\n" for field in fields(shape))
        for shape in shapes
    ]
    return (
        f"{EVENTS}| kind | what happened | details |\n|---|---|---|\n{''.join(rows)}\n## Details\n{''.join(chapters)}"
    )


API = """# The HTTP API

Made from the document that `serve` answers at `/openapi.json`, which has every field of what is sent and answered.
Errors are JSON: `{"success": false, "error": {"code": ..., "message": ...}}`. A viewer's, an operator's or an
administrator's token is made by `skyctl tokens create`; each may do what those before may. The panel's administrators
may do all.

"""
WHO = {"worker": "a worker", "viewer": "a viewer", "operator": "an operator", "admin": "an administrator"}


def api_page() -> str:
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in openapi.DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    rows = [
        f"| `{name}` | {caller(operation)} | {operation['summary']} | {', '.join(sorted(operation['responses']))} |\n"
        for name, operation in operations.items()
    ]
    statuses = [f"| {status} | {meaning} |\n" for status, meaning in openapi.ERRORS.items()]
    return (
        f"{API}| route | for | what it does | statuses |\n|---|---|---|---|\n{''.join(rows)}\n"
        f"## Errors\n\n| status | codes, and when |\n|---|---|\n{''.join(statuses)}"
    )


def caller(operation: dict[str, Any]) -> str:
    """Whose token a route wants; an administrator's of the panel does wherever there are roles."""
    wanted = {scheme: roles for alternative in operation["security"] for scheme, roles in alternative.items()}
    who = [WHO["worker"]] * ("workerToken" in wanted) + [WHO[role] for role in wanted.get("apiToken", ())]
    return ", ".join(who + ["Prometheus"] * ("metricsToken" in wanted)) or "anyone"


def test_the_document_names_whose_token_each_route_wants() -> None:
    roles = WHO | {"metrics": "a viewer, Prometheus"}
    for path, methods in ROUTES.items():
        for method, operation in methods.items():
            assert caller(openapi.DOCUMENT["paths"][path][method.lower()]) == roles.get(operation.who, "anyone")


@pytest.mark.parametrize(("name", "made"), [("events.md", events_page), ("api.md", api_page)])
def test_the_page_is_the_programs(name: str, made: Callable[[], str]) -> None:
    page = REFERENCE / name
    if os.environ.get("UPDATE_DOCUMENTS"):
        page.write_text(made())
    assert page.read_text() == made()


def test_the_readme_names_every_exit_code() -> None:
    sentence = "Exit codes: " + ", ".join(f"{code:d} {code.meaning}" for code in ExitCode) + "."
    assert sentence in " ".join((ROOT / "README.md").read_text().split())
