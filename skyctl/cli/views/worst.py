"""The workers of `cluster top` that need a look first: a table that fills its lines of the screen. No I/O."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from skyctl.cli.views import formats, workers
from skyctl.documents.http import Document
from skyctl.domain.text import printable

WIDE, ROOMY = 100, 64  # columns from which there is more to a line
GAP = 2
STATUS_CELLS, HEARD_CELLS, CONTAINERS_CELLS, NOTE_CELLS = 9, 8, 10, 16
LEAST_NAME = 8  # a narrower column of names would hold letters below each other


class _Widths(NamedTuple):
    """The widths of names, statuses and each bar; what a note gets is left."""

    name: int
    status: int
    bar: int


class Worst:
    """Workers, those that need a look first on top. Where the terminal is narrow, bars give way first, then names are
    folded: a worker may take several lines."""

    def __init__(self, overview: Document, console: Console, width: int) -> None:
        self._overview, self._width = overview, width
        self._rows = [_cells(worker, overview) for worker in overview["worst"]]
        self._widths = self._fitted()
        self._heights = [self._height(console, *cells[:2]) for cells in self._rows]

    @property
    def lines(self) -> int:
        """How many lines all of them take."""
        return sum(self._heights)

    def drawn(self, lines: int, *, titled: bool) -> list[Any]:
        """Return what fills so many lines, beside the headings: as many workers as these hold."""
        if not self._rows:
            none = Text("No workers: see `skyctl workers install-script`", no_wrap=True, overflow="ellipsis")
            return [none, *[Text()] * (lines + titled - 1)][: max(0, lines + titled)]
        table, left = self._table(titled=titled), max(0, lines)
        for cells, height in zip(self._rows, self._heights, strict=True):
            if height > left:
                break
            table.add_row(*cells[: len(table.columns)])
            left -= height
        if not table.row_count and left:  # rather a part of its name than no worker at all
            for cell in self._rows[0][:2]:
                cell.no_wrap, cell.overflow = True, "ellipsis"
            table.add_row(*self._rows[0][: len(table.columns)])
            left -= 1
        return [table, *[Text()] * left]

    def _fitted(self) -> _Widths:
        width = self._width
        figure, full = formats.FIGURE_CELLS, formats.FIGURE_CELLS + 1 + formats.BAR_CELLS
        most_bar = figure if width < ROOMY else 10 if width < WIDE else full
        others = [HEARD_CELLS] * (width >= ROOMY) + [CONTAINERS_CELLS, 0] * (width >= WIDE)
        room = width - sum(others) - GAP * (4 + len(others))
        names = max((cell_len(cells[0].plain) for cells in self._rows), default=0)
        statuses = max((cell_len(cells[1].plain) for cells in self._rows), default=0)
        notes = max((cell_len(cells[-1].plain) for cells in self._rows), default=0) if width >= WIDE else 0
        usual = room - STATUS_CELLS - 3 * most_bar
        half = (usual + 1) // 2 if width >= WIDE else usual
        if statuses <= STATUS_CELLS and names <= half:
            return _Widths(half, STATUS_CELLS, most_bar)
        room -= min(notes, NOTE_CELLS)
        bar = min(most_bar, max(figure, (room - names - max(statuses, STATUS_CELLS)) // 3))
        status = max(STATUS_CELLS, min(statuses, room - 3 * bar - names))
        return _Widths(max(1, min(names, room - 3 * bar - status)), status, bar)

    def _height(self, console: Console, name: Text, status: Text) -> int:
        if self._widths.name < LEAST_NAME:
            return 1
        widths = (self._widths.name, self._widths.status)
        return max(len(text.wrap(console, most)) for text, most in zip((name, status), widths, strict=True))

    def _table(self, *, titled: bool) -> Table:
        folds, widths = self._widths.name >= LEAST_NAME, self._widths
        table = Table(box=None, pad_edge=False, show_header=titled, header_style="bold", expand=True)
        cut: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
        last_is_note = self._width >= WIDE
        name: dict[str, Any] = {"width": widths.name} if last_is_note else {"ratio": 1}
        table.add_column("WORST", **name, **({"overflow": "fold"} if folds else cut))
        table.add_column("STATUS", width=widths.status, no_wrap=not folds, overflow="fold" if folds else "ellipsis")
        for heading in ("CPU", "MEM" if widths.bar < 6 else "MEMORY", "DISK"):
            table.add_column(heading, width=widths.bar)
        if self._width >= ROOMY:
            table.add_column("HEARD", width=HEARD_CELLS)
        if last_is_note:
            table.add_column("CONTAINERS", width=CONTAINERS_CELLS)
            table.add_column("NOTE", ratio=1, **cut)
        return table


def page(overview: Document) -> list[Any]:
    """All of them as one of the lists has them, for whoever has no terminal."""
    if not overview["worst"]:
        return [Text("No workers: see `skyctl workers install-script`")]
    headings = ("NAME", "STATUS", "CPU", "MEMORY", "DISK", "HEARD", "CONTAINERS", "NOTE")
    table = formats.plain_table(*headings, bars=(2, 3, 4))
    for worker in overview["worst"]:
        table.add_row(*_cells(worker, overview))
    return [table]


def _cells(worker: Document, overview: Document) -> Sequence[Any]:
    *loads, containers = workers.load_bars(worker, overview["stats"]["limits"])
    heard = Text(formats.ago(worker["lastHeartbeatAt"], overview["readAt"]))
    return [Text(printable(worker["name"])), workers.standing_text(worker), *loads, heard, containers, _note(worker)]


def _note(worker: Document) -> Text:
    """Further facts about a worker: flapping, mass failure, drain."""
    notes = ["flapping"] if worker["flappingSince"] else []
    notes += [f"mass failure {worker['massFailureId']}"] if worker["massFailureId"] else []
    notes += [f"drain: {worker['drainReason'] or 'asked'}"] if worker["drainRequestedAt"] else []
    return Text(printable(", ".join(notes)), style="dim")
