"""Shared by the tables: bars, colours, and values in words. No I/O."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from skyctl.cli.views.tables import FittedTable
from skyctl.documents.http import Document
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import printable

BAR_CELLS = 10
FIGURE_CELLS = 4
SPARKS = "▁▂▃▄▅▆▇█"
RESOURCES = ("cpuPercent", "memoryPercent", "diskPercent")
COLORS: dict[str, str] = {
    WorkerStatus.ACTIVE: "green",
    WorkerStatus.PENDING: "cyan",
    WorkerStatus.UNHEALTHY: "yellow",
    WorkerStatus.DRAINING: "magenta",
    WorkerStatus.OFFLINE: "red",
}


def plain_table(*headings: str, heading: bool = True, bars: Sequence[int] = (), wide: bool = False) -> FittedTable:
    """A table without lines; the columns of these numbers, bars or long texts, give way first where the terminal is
    narrow. One that is `wide` folds no others."""
    return FittedTable(*headings, heading=heading, yielding=bars, wide=wide)


def counted(noun: str, shown: int, total: int, offset: int) -> str:
    """Return how many there are, which of them are shown, and how to see more."""
    if not shown:
        return f"No {noun}s." if total == 0 else f"No {noun}s at --offset {offset}; there are {total}."
    if shown == total:
        return f"{total} {noun}{'s' * (total != 1)}"
    last = offset + shown
    more = f"; more: --offset {last}" if last < total else ""
    return f"{offset + 1} to {last} of {total} {noun}s{more}"


def stamp(at: str | None) -> str:
    """Return a moment in local time, with its offset."""
    return _moment(at).astimezone().isoformat(timespec="seconds").replace("+00:00", "Z") if at else "-"


def clock(at: str, form: str) -> str:
    """Return a moment in local time, in a form of strftime."""
    return _moment(at).astimezone().strftime(form)


def day(at: str) -> str:
    """Return the day of a moment, by the offset that it has."""
    return f"{_moment(at):%Y-%m-%d}"


def has_come(at: str, now: str) -> bool:
    """Tell whether a moment is not ahead any more."""
    return _moment(at) <= _moment(now)


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=COLORS.get(status, ""))


class Bar:
    """A percentage as a bar that gives way to narrow terminals, and a figure that does not."""

    def __init__(self, percent: float, limit: float) -> None:
        self._percent = percent
        self._style = load_style(percent, limit)

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(FIGURE_CELLS, min(FIGURE_CELLS + 1 + BAR_CELLS, options.max_width))

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        cells = min(BAR_CELLS, options.max_width - FIGURE_CELLS - 1)
        bar = blocks(self._percent, cells) + " " if cells > 0 else ""
        yield Text.assemble((bar, self._style), f"{self._percent:3.0f}%")


def bars(load: Document, limits: Document) -> list[Bar]:
    """Return the bars of CPU, memory and disk, coloured by the limits."""
    return [Bar(load[resource], limits[resource]) for resource in RESOURCES]


def blocks(percent: float, cells: int = BAR_CELLS) -> str:
    """Return a percentage as a bar of `cells` characters."""
    filled = min(cells, round(percent / 100 * cells))
    return "█" * filled + "░" * (cells - filled)


def sparkline(percents: Iterable[float]) -> str:
    """Return percentages one after the other, a character each."""
    return "".join(SPARKS[min(len(SPARKS) - 1, int(percent / 100 * len(SPARKS)))] for percent in percents)


def load_style(percent: float, limit: float) -> str:
    """The colour of a load: red above its limit, yellow near it."""
    return "red" if percent > limit else "yellow" if percent > 0.8 * limit else "green"


def capacity_text(capacity: Document) -> str:
    """A capacity in words."""
    cores, memory, disk = capacities(capacity)
    return f"{cores}, {memory} memory, {disk} disk"


def capacities(capacity: Document) -> tuple[str, str, str]:
    """The amounts of CPU, memory and disk."""
    cores = number(capacity["cpuCores"])
    return f"{cores} core{'s' * (cores != '1')}", size(capacity["memoryMb"]), size(1024 * capacity["diskGb"])


def age(at: str, now: str) -> str:
    """The time since then in its largest unit: `12s`."""
    return span(_moment(now) - _moment(at))


def ago(at: str | None, now: str) -> str:
    """The time since then in its largest unit: `12s ago`; `-` for never."""
    return "-" if at is None else f"{age(at, now)} ago"


def ahead(at: str, now: str) -> str:
    """The time until then, to the minute: `12s`, `1h 59m`."""
    seconds = max(0, math.ceil((_moment(at) - _moment(now)) / timedelta(seconds=1)))
    if seconds < 60:
        return f"{seconds}s"
    days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
    return " ".join(f"{count}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if count)


def span(length: timedelta) -> str:
    """A length of time in its largest unit: `12s`."""
    seconds = max(0, int(length / timedelta(seconds=1)))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def number(value: float) -> str:
    """Return a number without needless digits: `2`, `0.5`."""
    return f"{value:g}"


def size(mebibytes: float) -> str:
    """Mebibytes in the largest unit that fits."""
    value, units = float(mebibytes), ["MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if value >= 100 else f"{value:.1f} {units[0]}"


def details(rows: Sequence[tuple[str, Any]]) -> Table:
    """Facts, each by its name; texts that others wrote are made printable, and folded where they are long."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(printable(name)), Text(printable(value)) if isinstance(value, str) else value)
    return table


def drain_total(drain: Document) -> int:
    """Return how many containers were there when a drain began, or are."""
    return int(drain["moved"] + drain["underWay"] + drain["waiting"] + len(drain["left"]))


def drain_counts(drain: Document) -> str:
    """Return how far a drain is, in figures: `2 of 5 moved, 1 under way`."""
    figures = ((drain["underWay"], "under way"), (drain["waiting"], "waiting"), (len(drain["left"]), "left"))
    moved = f"{drain['moved']} of {drain_total(drain)} moved"
    return ", ".join([moved, *(f"{count} {what}" for count, what in figures if count)])


def _moment(at: str) -> datetime:
    """Read a time of a document: ISO 8601 with its offset."""
    return datetime.fromisoformat(at)
