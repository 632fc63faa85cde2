"""Values as one JSON array of objects: a statement takes thousands of them as one parameter."""

import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import orjson


def dump(values: Sequence[Any]) -> str:
    """Write dataclasses, ids and times among their fields. Text that is none in UTF-8 is escaped: the database refuses
    it, and says so."""
    try:
        return orjson.dumps(values).decode()
    except orjson.JSONEncodeError:
        return f"[{','.join(map(_one, values))}]"


def _one(value: Any) -> str:
    """A value by itself, so that none is written in another way because of its neighbours."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
