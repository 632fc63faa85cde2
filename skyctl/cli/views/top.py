"""The pictures of `cluster top`: a full screen of any size, and one plain page. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from skyctl.cli.views import formats, workers
from skyctl.domain.cluster import Event, Load, MassFailure, Overview, Worker
from skyctl.domain.events import EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import printable

WIDE, ROOMY = 100, 64  # columns from which there is more to a line
TALL, TITLED = 20, 6  # lines from which there are gaps on the screen, and headings in what is left of it
WORST_SHARE = 0.6
LATE_INTERVALS = 3
MOST_SPARKS = 30
NARROW_BAR, WIDE_BAR = 6, 20
MOST_HELD = 2
# how a migration's state is called beside the counts of workers and containers
_MOVES = {"awaiting_approval": "to approve", "queued": "to move", "starting": "moving", "verifying": "arriving"}


@dataclass(frozen=True, slots=True)
class Picture:
    """The content of a screen: the last look at the cluster, its loads of the last minute, and why there is no newer
    look."""

    overview: Overview
    history: Sequence[Load] = ()
    trouble: str = ""


class FullScreen:
    """A picture that fills the terminal. Where that is small, workers and events share what head and foot leave."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.height
        overview = self._picture.overview
        foot = _foot(self._picture)
        head = _head(self._picture, width)[: max(0, height - len(foot))]
        gap = [Text()] if height >= TALL else []
        left = max(0, height - len(head) - len(foot) - 2 * len(gap))
        title = int(left >= TITLED)
        rows = _share(left, max(1, len(overview.worst) + title), len(overview.events) + title)
        body = [*head, *gap, *_worst(overview, rows - title, width, titled=bool(title)), *gap]
        body += _events(overview, left - rows - title, titled=bool(title))
        used = len(head) + 2 * len(gap) + rows + min(left - rows, len(overview.events) + title)
        yield from (*body, *[Text()] * (height - len(foot) - used), *foot[-height:])


def page(overview: Overview) -> list[Any]:
    """All of it below each other, for whoever has no terminal."""
    picture = Picture(overview)
    worst, events = _worst(overview, len(overview.worst), WIDE, expand=False), _events(overview, len(overview.events))
    return [*_head(picture, WIDE), Text(), *worst, Text(), *events, Text(), *_foot(picture, live=False)]


def _head(picture: Picture, width: int) -> list[Text]:
    """The time, how many workers of each status, how many containers move, and the load of the cluster."""
    overview, stats = picture.overview, picture.overview.stats
    title = _line(("skyctl cluster top", "bold"), f"  {overview.read_at:%Y-%m-%d %H:%M:%S} UTC")
    noun = "worker" if stats.total == 1 else "workers"
    counts = [Text(f"{stats.total} {noun}", style="bold"), Text(f"{stats.load.container_count} containers")]
    counts += [
        Text(f"{stats.by_status[s]} {s.value}", style=formats.COLORS[s]) for s in WorkerStatus if stats.by_status.get(s)
    ]
    counts += [
        Text(f"{count} {_MOVES.get(state, state)}", style="cyan") for state, count in overview.migrations.items()
    ]
    policy, capacities = overview.policy, formats.capacities(stats.capacity)
    most = (policy.cpu_percent, policy.memory_percent, policy.disk_percent)
    bars = []
    for number, name in enumerate(("cpu", "memory", "disk")):
        past = [load[number] for load in picture.history]
        bars.append(_load_line(name, past, stats.load[number], most[number], capacities[number], width))
    return [title, *_wrapped(counts, width), *bars]


def _load_line(name: str, past: Sequence[float], percent: float, limit: float, capacity: str, width: int) -> Text:
    """A resource of the cluster: its load now, that of the last minute, and how much there is of it."""
    cells = NARROW_BAR if width < ROOMY else WIDE_BAR
    room = min(MOST_SPARKS, width - len(f"memory {'':{cells}} 100%    of {capacity}"))
    sparks = formats.sparkline(past[-room:] if room > 0 else ())
    bar = (formats.blocks(percent, cells), formats.load_style(percent, limit))
    return _line(f"{name:<6} ", bar, f" {percent:3.0f}%  ", f"{sparks}  " if sparks else "", (f"of {capacity}", "dim"))


def _worst(overview: Overview, rows: int, width: int, *, titled: bool = True, expand: bool = True) -> list[Any]:
    """The workers that need a look first, one a line."""
    if not overview.worst:
        lines = [_line("No workers: see `skyctl workers install-script`"), *[Text()] * (rows + titled - 1)]
        return lines[: rows + titled]
    table = Table(box=None, pad_edge=False, show_header=titled, header_style="bold", expand=expand)
    figure, bars = formats.FIGURE_CELLS, formats.FIGURE_CELLS + 1 + formats.BAR_CELLS
    bars = figure if width < ROOMY else 10 if width < WIDE else bars
    table.add_column("WORST" if expand else "NAME", no_wrap=True, overflow="ellipsis", ratio=1 if expand else None)
    table.add_column("STATUS", width=9)
    for name in ("CPU", "MEM" if bars == figure else "MEMORY", "DISK"):
        table.add_column(name, width=bars)
    if width >= ROOMY:
        table.add_column("HEARD", width=8)
    if width >= WIDE:
        table.add_column("CONTAINERS", width=10)
        table.add_column("NOTE", no_wrap=True, overflow="ellipsis", ratio=1 if expand else None)
    for worker in overview.worst[: max(0, rows)]:
        *loads, containers = workers.load_bars(worker, overview.policy)
        more = [Text(formats.ago(worker.last_heartbeat_at, overview.read_at)), containers, _note(worker)]
        cells = [Text(printable(worker.name)), workers.standing_text(worker), *loads, *more]
        table.add_row(*cells[: len(table.columns)])
    return [table]


def _note(worker: Worker) -> Text:
    """Further facts about a worker: flapping, mass failure, drain."""
    notes = ["flapping"] if worker.flapping_since else []
    notes += [f"mass failure {worker.mass_failure_id}"] if worker.mass_failure_id else []
    notes += [f"drain: {worker.drain_reason or 'asked'}"] if worker.drain_requested_at else []
    return Text(printable(", ".join(notes)), style="dim")


def _events(overview: Overview, rows: int, *, titled: bool = True) -> list[Text]:
    """The last events, the latest first, one a line."""
    lines = [_event(event, overview) for event in reversed(overview.events)][: max(0, rows)]
    return [_line(("EVENTS", "bold")), *lines] if titled else lines


def _event(event: Event, overview: Overview) -> Text:
    what = Text(event.kind.replace("_", " "))
    if event.to_status and event.kind == EventKind.STATUS_CHANGED:
        what = Text(" to ").join(
            formats.status_text(status) for status in (event.from_status, event.to_status) if status
        )
    name = f"{printable(event.worker_name)} " if event.worker_name else ""
    reason = f": {printable(event.reason)}" if event.reason else ""
    by = "" if event.actor == "monitor" else f" ({printable(event.actor)})"
    return _line((f"{formats.ago(event.at, overview.read_at):>7} ", "dim"), name, what, reason, (by, "dim"))


def _foot(picture: Picture, *, live: bool = True) -> list[Text]:
    """The state of the picture itself, the monitor that leads, and how to leave."""
    overview = picture.overview
    lines = [_line((picture.trouble, "bold red"))] if picture.trouble else []
    lines += [_held(failure, overview) for failure in overview.mass_failures[:MOST_HELD]]
    return [*lines, _line("q quits · " if live else "", _monitor(overview))]


def _held(failure: MassFailure, overview: Overview) -> Text:
    where = f" in {printable(failure.region)}" if failure.region else ""
    when = formats.ago(failure.detected_at, overview.read_at)
    fell = f"{failure.silent} of {failure.schedulable} workers{where} failed {when}"
    return _line((f"held: {fell}; nothing is moved until they return", "yellow"))


def _monitor(overview: Overview) -> Text:
    """The monitor that leads, and when it last looked; a warning where that was too long ago."""
    if overview.monitor_seen_at is None:
        return Text("no monitor has run yet: statuses do not change", style="yellow")
    passed = f"pass {formats.ago(overview.monitor_seen_at, overview.read_at)}"
    if overview.read_at - overview.monitor_seen_at > LATE_INTERVALS * overview.policy.heartbeat_interval:
        return Text(f"last {passed}: statuses may be old; run `skyctl monitor`", style="yellow")
    if overview.leader is None:
        return Text(f"{passed}, no monitor leads now")
    holder = printable(overview.leader.holder.rpartition(":")[0] or overview.leader.holder)
    return Text(f"{passed} by {holder}, term {overview.leader.term}")


def _share(left: int, worst: int, events: int) -> int:
    """Return how many of the lines that are left the workers get: most of them, where there are enough events for the
    others."""
    return min(worst, max(left - events, round(left * WORST_SHARE)))


def _wrapped(parts: Sequence[Text], width: int) -> list[Text]:
    """The parts beside each other, on as many lines as they need."""
    lines = [_line()]
    for part in parts:
        gap = "  " if lines[-1] else ""
        if gap and lines[-1].cell_len + len(gap) + part.cell_len > width:
            lines.append(_line())
            gap = ""
        lines[-1].append(gap).append(part)
    return lines


def _line(*parts: str | Text | tuple[str, str]) -> Text:
    """One line, cut where it is too long."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")
