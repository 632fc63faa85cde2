"""The pictures of `cluster top`: a full screen of any size, and one plain page. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from skyctl.cli.views import formats, worst
from skyctl.cli.views.worst import ROOMY, WIDE, Worst
from skyctl.documents.http import Document
from skyctl.domain.events import EventKind
from skyctl.domain.states import WorkerStatus
from skyctl.domain.text import printable

TALL, TITLED = 20, 6  # lines from which there are gaps on the screen, and headings in what is left of it
WORST_SHARE = 0.6
MOST_SPARKS = 30
NARROW_BAR, WIDE_BAR = 6, 20
MOST_HELD = 2
# how a migration's state is called beside the counts of workers and containers
_MOVES = {"awaiting_approval": "to approve", "queued": "to move", "starting": "moving", "verifying": "arriving"}


@dataclass(frozen=True, slots=True)
class Picture:
    """The content of a screen: the last look at the cluster, its loads of the last minute, and why there is no newer
    look."""

    overview: Document
    history: Sequence[Document] = ()
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
        table = Worst(overview, console, width)
        rows = _share(left, max(1, table.lines + title), len(overview["events"]) + title)
        body = [*head, *gap, *table.drawn(rows - title, titled=bool(title)), *gap]
        body += _events(overview, left - rows - title, titled=bool(title))
        used = len(head) + 2 * len(gap) + rows + min(left - rows, len(overview["events"]) + title)
        yield from (*body, *[Text()] * (height - len(foot) - used), *foot[-height:])


def page(overview: Document) -> list[Any]:
    """All of it below each other, for whoever has no terminal."""
    picture = Picture(overview)
    events = _events(overview, len(overview["events"]))
    return [*_head(picture, WIDE), Text(), *worst.page(overview), Text(), *events, Text(), *_foot(picture, live=False)]


def _head(picture: Picture, width: int) -> list[Text]:
    """The time, how many workers of each status, how many containers move, and the load of the cluster."""
    overview, stats = picture.overview, picture.overview["stats"]
    clock, total = formats.clock(overview["readAt"], "%Y-%m-%d %H:%M:%S %Z"), stats["totalWorkers"]
    title = _line(("skyctl cluster top", "bold"), f"  {clock}")
    noun = "worker" if total == 1 else "workers"
    counts = [Text(f"{total} {noun}", style="bold"), Text(f"{stats['totalContainers']} containers")]
    counts += [
        Text(f"{stats[f'{status}Workers']} {status}", style=formats.COLORS[status])
        for status in WorkerStatus
        if stats[f"{status}Workers"]
    ]
    counts += [
        Text(f"{count} {_MOVES.get(state, state)}", style="cyan") for state, count in overview["migrations"].items()
    ]
    resources = zip(
        ("cpu", "memory", "disk"), formats.RESOURCES, formats.capacities(stats["totalCapacity"]), strict=True
    )
    bars = []
    for name, resource, capacity in resources:
        past = [load[resource] for load in picture.history]
        percent, limit = stats["totalLoad"][resource], stats["limits"][resource]
        bars.append(_load_line(name, past, percent, limit, capacity, width))
    return [title, *_wrapped(counts, width), *bars]


def _load_line(name: str, past: Sequence[float], percent: float, limit: float, capacity: str, width: int) -> Text:
    """A resource of the cluster: its load now, that of the last minute, and how much there is of it."""
    cells = NARROW_BAR if width < ROOMY else WIDE_BAR
    room = min(MOST_SPARKS, width - len(f"memory {'':{cells}} 100%    of {capacity}"))
    sparks = formats.sparkline(past[-room:] if room > 0 else ())
    bar = (formats.blocks(percent, cells), formats.load_style(percent, limit))
    return _line(f"{name:<6} ", bar, f" {percent:3.0f}%  ", f"{sparks}  " if sparks else "", (f"of {capacity}", "dim"))


def _events(overview: Document, rows: int, *, titled: bool = True) -> list[Text]:
    """The last events, the latest first, one a line."""
    lines = [_event(event, overview["readAt"]) for event in reversed(overview["events"])][: max(0, rows)]
    return [_line(("EVENTS", "bold")), *lines] if titled else lines


def _event(event: Document, now: str) -> Text:
    what = Text(event["kind"].replace("_", " "))
    if event["toStatus"] and event["kind"] == EventKind.STATUS_CHANGED:
        statuses = [status for status in (event["fromStatus"], event["toStatus"]) if status]
        what = Text(" to ").join(map(formats.status_text, statuses))
    name = f"{printable(event['workerName'])} " if event["workerName"] else ""
    reason = f": {printable(event['reason'])}" if event["reason"] else ""
    by = "" if event["actor"] == "monitor" else f" ({printable(event['actor'])})"
    return _line((f"{formats.ago(event['at'], now):>7} ", "dim"), name, what, reason, (by, "dim"))


def _foot(picture: Picture, *, live: bool = True) -> list[Text]:
    """The state of the picture itself, the monitor that leads, and how to leave."""
    overview = picture.overview
    lines = [_line((picture.trouble, "bold red"))] if picture.trouble else []
    lines += [_held(failure, overview["readAt"]) for failure in overview["massFailures"][:MOST_HELD]]
    return [*lines, _line("q quits · " if live else "", _monitor(overview))]


def _held(failure: Document, now: str) -> Text:
    where = f" in {printable(failure['region'])}" if failure["region"] else ""
    when = formats.ago(failure["detectedAt"], now)
    fell = f"{failure['silent']} of {failure['schedulable']} workers{where} failed {when}"
    return _line((f"held: {fell}; nothing is moved until they return", "yellow"))


def _monitor(overview: Document) -> Text:
    """The monitor that leads, and when it last looked; a warning where that was too long ago."""
    monitor = overview["monitor"]
    leader, last_pass_at = monitor["leader"], monitor["lastPassAt"]
    if last_pass_at is None:
        return Text("no monitor has run yet: statuses do not change", style="yellow")
    passed = f"pass {formats.ago(last_pass_at, overview['readAt'])}"
    if monitor["late"]:
        return Text(f"last {passed}: statuses may be old; run `skyctl monitor`", style="yellow")
    if leader is None:
        return Text(f"{passed}, no monitor leads now")
    return Text(f"{passed} by {printable(leader.rpartition(':')[0] or leader)}, term {monitor['term']}")


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
