"""Tables that fit the terminal: what gives way where it is narrow, and what never does. No I/O."""

from collections.abc import Collection, Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

GAP = 2
UNBOUND = 10_000
LONGEST_KEPT = 17  # words up to this, as all states are, stay on one line
FOLDED_CELLS = 12  # the least that longer ones are folded to


class FittedTable(Table):
    """A table without lines, in which nothing is cut but headings.

    Where the terminal is narrow, bars and long texts give way first (the columns whose numbers are in `yielding`), then
    all else is folded, and at last lines are longer than the terminal, which shows their rest below. With `wide` they
    are so at once.
    """

    def __init__(self, *headings: str, heading: bool, yielding: Collection[int], wide: bool) -> None:
        super().__init__(box=None, pad_edge=False, show_header=heading, header_style="bold")
        self._headings, self._yielding, self._wide = headings, yielding, wide
        for name in headings:
            self.add_column(Text(name, no_wrap=True, overflow="ellipsis"), overflow="fold")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(console, options)
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options.update(max_width=sum(widths) + self._gaps))

    @property
    def _gaps(self) -> int:
        return GAP * (len(self.columns) - 1)

    def _widths(self, console: Console, options: ConsoleOptions) -> list[int]:
        """The width of each column."""
        measures = list(self._measures(console, options))
        headings = [len(name) * self.show_header for name in self._headings]
        widths = [max(most, heading) for (_, most), heading in zip(measures, headings, strict=True)]
        yielding = [number for number in range(len(widths)) if number in self._yielding]
        others = [number for number in range(len(widths)) if number not in self._yielding]
        least = [least for least, _ in measures]
        named = [max(each, heading) for each, heading in zip(least, headings, strict=True)]
        stages = [(yielding, named)] if self._wide else [(yielding, named), (others, named), (yielding + others, least)]
        for columns, floors in stages:
            _shrink(widths, columns, floors, options.max_width - self._gaps)
        return widths

    def _measures(self, console: Console, options: ConsoleOptions) -> Iterator[tuple[int, int]]:
        """The least and the most that the cells of each column take."""
        unbound = options.update(max_width=UNBOUND)
        for column in self.columns:
            cells = [Measurement.get(console, unbound, cell) for cell in column.cells]
            most = max((cell.maximum for cell in cells), default=0)
            word = max((cell.minimum for cell in cells), default=0)
            yield word if word <= LONGEST_KEPT else FOLDED_CELLS, most


def _shrink(widths: list[int], columns: Collection[int], floors: list[int], room: int) -> None:
    """Take from the widest of these columns, none of which gets narrower than its floor, until all fit."""
    while sum(widths) > room:
        above = [number for number in columns if widths[number] > floors[number]]
        if not above:
            return
        widths[max(above, key=widths.__getitem__)] -= 1
