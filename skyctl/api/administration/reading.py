"""How the operations of administration read what is asked: pages, choices, references, bodies."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

from skyctl.api.administration.route import parameter
from skyctl.api.operation import ApiRequest
from skyctl.api.schemas import Document
from skyctl.documents import http, times
from skyctl.domain.api_tokens import Role
from skyctl.domain.drains import DrainOptions
from skyctl.domain.errors import ValidationError
from skyctl.domain.workloads import Organization
from skyctl.operations.admin import services
from skyctl.operations.shared import authentication, lookup
from skyctl.operations.shared.context import Context

MAX_PAGE = 1000
MAX_OFFSET = 999_999_999
MOST_NAMED = 1000
MAX_SEQ = 2**63 - 1
REFERENCE = "an id, a unique beginning of one, or a name"
LIMIT = parameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100})
PAGE = (LIMIT, parameter("offset", {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET, "default": 0}))
SEVERAL = "one or several, between commas"
WORKER = parameter("worker", {"type": "string"}, f"{SEVERAL}: {REFERENCE}")
ORGANIZATION = parameter("organization", {"type": "string"}, f"{SEVERAL}: a slug or an id")

Choice = TypeVar("Choice", bound=StrEnum)


def limit(request: ApiRequest) -> int:
    """Return how many are wanted at most. Raises ValidationError."""
    return http.whole_number("limit", request.query.get("limit"), 100, 1, MAX_PAGE)


def offset(request: ApiRequest) -> int:
    """Return how many are passed over. Raises ValidationError."""
    return http.whole_number("offset", request.query.get("offset"), 0, 0, MAX_OFFSET)


def sequence(field: str, request: ApiRequest) -> int:
    """Return a number of the log. Raises ValidationError."""
    said = request.query[field]
    if not re.fullmatch(r"[0-9]{1,19}", said, re.ASCII) or int(said) > MAX_SEQ:
        raise http.invalid(field, said, "the number of an event, 0 for the first")
    return int(said)


def choice(field: str, value: object, kind: type[Choice]) -> Choice:
    """Return a value of an enumeration. Raises ValidationError that names the field."""
    if isinstance(value, str) and value in list(kind):
        return kind(value)
    raise http.invalid(field, value, f"one of {', '.join(kind)}")


def choices(request: ApiRequest, field: str, kind: type[Choice]) -> list[Choice]:
    """Return the values of a parameter that takes several, between commas. Raises ValidationError."""
    return [choice(field, value, kind) for value in several(request, field)]


def order(request: ApiRequest, default: Choice) -> Choice:
    """Return the order of a list. Raises ValidationError."""
    return choice("sortBy", request.query.get("sortBy", default), type(default))


def sort_by(default: StrEnum) -> Document:
    """Return the parameter of a list's order."""
    return parameter("sortBy", {"type": "string", "enum": [each.value for each in type(default)], "default": default})


def worker_ids(context: Context, request: ApiRequest) -> list[UUID]:
    """Return the ids of the workers that the query names. Raises WorkerNotFound, ValidationError."""
    return [worker.id for worker in lookup.find_workers(context, several(request, "worker"))]


def organizations(context: Context, request: ApiRequest) -> list[Organization]:
    """Return the organizations that the query names. Raises OrganizationNotFound."""
    return [services.organization(context, named) for named in several(request, "organization")]


def sees_secrets(context: Context, request: ApiRequest) -> bool:
    """Tell whether the one who asks may see what can hold a secret: an administrator, who may deploy it, may."""
    return (request.role or authentication.role_of(context, request.token)) is Role.ADMIN


def reference(request: ApiRequest) -> str:
    """Return what the path names. Raises ValidationError where nothing could have that name."""
    return storable("reference", request.path["reference"])


def body(request: ApiRequest, *fields: str) -> Mapping[str, Any]:
    """Return the body's fields; an empty body has none. Raises ValidationError, also for a field that nobody knows: an
    order that is misspelt must not be taken for one without it."""
    document = http.parse(request.body) if request.body else {}
    unknown = sorted(document.keys() - set(fields))
    if unknown:
        raise ValidationError(f"{unknown[0]}: there is no such field", f"the fields are {', '.join(fields) or 'none'}")
    return document


def text(document: Mapping[str, Any], field: str) -> str:
    """Return a field that is a text. Raises ValidationError."""
    value = document.get(field)
    if not isinstance(value, str):
        raise http.invalid(field, value, "a text")
    return storable(field, value)


def texts(document: Mapping[str, Any], field: str, *, optional: bool = False) -> list[str]:
    """Return a field that is a list of texts; none where it may be left out. Raises ValidationError."""
    value = document.get(field, [] if optional else None)
    if not isinstance(value, list) or len(value) > MOST_NAMED or not all(isinstance(each, str) for each in value):
        raise http.invalid(field, value, f"a list of at most {MOST_NAMED} texts")
    return [storable(field, each) for each in value]


def flag(field: str, document: Mapping[str, Any]) -> bool:
    """Return a field that is true or false, which is false where it is left out. Raises ValidationError."""
    value = document.get(field, False)
    if not isinstance(value, bool):
        raise http.invalid(field, value, "true or false")
    return value


def whole(document: Mapping[str, Any], field: str, least: int, most: int) -> int:
    """Return a field that is a whole number within bounds. Raises ValidationError."""
    value = document.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise http.invalid(field, value, f"a whole number from {least} to {most}")
    return value


def drain_options(document: Mapping[str, Any]) -> DrainOptions:
    """Return what the fields of a body say of a drain; others are not looked at. Raises ValidationError."""
    wishes = DrainOptions(
        http.reason(document["reason"]) if "reason" in document else None,
        times.duration("deadline", text(document, "deadline")) if "deadline" in document else None,
        whole(document, "maxParallel", 1, 10_000) if "maxParallel" in document else None,
        *(flag(field, document) for field in ("force", "keepGlobal", "moveLocalData")),
    )
    if wishes.force and wishes.deadline is None:
        raise ValidationError("force: there is no deadline", "give one, after which what is left is stopped")
    return wishes


def is_true(field: str, request: ApiRequest) -> bool:
    """Return a parameter that is true or false, which is false where it is left out. Raises ValidationError."""
    said = request.query.get(field, "false")
    if said not in ("true", "false"):
        raise http.invalid(field, said, "true or false")
    return said == "true"


def one_of(**given: bool) -> None:
    """Raise ValidationError unless just one of these fields is given."""
    if sum(given.values()) != 1:
        raise ValidationError(f"{', '.join(given)}: just one of them is to be given", f"give {' or '.join(given)}")


def object_of(*optional: str, **properties: Document) -> Document:
    """Return the schema of a body that takes these fields and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def several(request: ApiRequest, field: str) -> list[str]:
    """Return the values of a parameter that takes several, between commas. Raises ValidationError."""
    said = request.query.get(field, "")
    return [storable(field, value) for value in said.split(",")] if said else []


def labels(request: ApiRequest, field: str) -> list[str]:
    """Return the values of a parameter that takes several, of which an empty one means what has none."""
    return [storable(field, value) for value in request.query[field].split(",")] if field in request.query else []


def storable(field: str, value: str) -> str:
    """Return a text that may be stored, and so be found. Raises ValidationError."""
    return http.text_filter(field, value)
