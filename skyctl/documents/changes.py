"""What a deployment or a rollback changes of a service, field by field. The values of variables are never in it: they
may be secrets."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from skyctl.documents import manifest
from skyctl.domain.engine import Document
from skyctl.domain.workloads import ServiceSpec

HIDDEN = "hidden"


class Change(NamedTuple):
    """A field, or one name of it as `labels.team`; what it is, and what it is to be (null: it is not there)."""

    field: str
    before: str | None
    after: str | None

    def hidden(self) -> "Change":
        """The same change without what it was and is."""
        return Change(self.field, _hidden(self.before), _hidden(self.after))

    @property
    def document(self) -> Document:
        """The change as JSON."""
        return {"field": self.field, "before": self.before, "after": self.after}

    @property
    def text(self) -> str:
        """The change in a line."""
        if HIDDEN in (self.before, self.after):
            what = "added" if self.before is None else "removed" if self.after is None else "changed"
            return f"{self.field}: {what}"
        return f"{self.field}: {self.before or '-'} -> {self.after or '-'}"


def changes(before: ServiceSpec, after: ServiceSpec) -> list[Change]:
    """Return what differs, in the order of the fields."""
    was, now = manifest.fields(before), manifest.fields(after)
    found = []
    for field in manifest.FIELDS:
        if isinstance(was[field], dict):
            found += _of_names(field, was[field], now[field])
        elif was[field] != now[field]:
            found.append(Change(field, _shown(was[field]), _shown(now[field])))
    return found


def of_specifications(before: Document, after: Document, within: str = "") -> list[Change]:
    """Return what differs between two specifications of the swarm, by the names in them. Of the values only images are
    told: any other may be a secret. What is empty is as if it were not there, as for the engine."""
    found = []
    for name in sorted({*before, *after}):
        was, now, field = before.get(name) or None, after.get(name) or None, f"{within}{name}"
        if isinstance(was or {}, dict) and isinstance(now or {}, dict):
            found += of_specifications(was or {}, now or {}, f"{field}.")
        elif was != now:
            texts = (was, now) if name == "Image" else (_hidden(was), _hidden(now))
            found.append(Change(field, *texts))
    return found


def _of_names(field: str, was: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    is_secret = field == "env"
    differing = [name for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return [
        Change(f"{field}.{name}", *(_hidden(each.get(name)) if is_secret else each.get(name) for each in (was, now)))
        for name in differing
    ]


def _hidden(value: Any) -> str | None:
    return None if value is None else HIDDEN


def _shown(value: Any) -> str | None:
    if isinstance(value, list):
        return " ".join(value) or None
    return None if value is None else str(value)
