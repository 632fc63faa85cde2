"""The progress of drains as it is shown while somebody waits: bars on a terminal, else a line at each change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from skyctl.cli.views import formats
from skyctl.domain.text import printable
from skyctl.domain.workloads import DrainProgress

Show = Callable[[Sequence[DrainProgress]], None]


@contextmanager
def progress(screen: Console, *, quiet: bool) -> Iterator[Show]:
    """Give the function that shows the drains' progress. Each reason why a container waits is printed once."""
    printed: set[str] = set()
    bars: dict[UUID, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=screen, disable=quiet or not screen.is_terminal) as display:

        def print_once(line: str) -> None:
            if line not in printed and not quiet:
                printed.add(line)
                display.console.print(line, soft_wrap=True)

        def show(drains: Sequence[DrainProgress]) -> None:
            for drain in drains:
                name, figures = printable(drain.worker.name), formats.drain_counts(drain)
                for reason in drain.reasons:
                    print_once(f"{name}: {printable(reason)}")
                if display.disable:
                    print_once(f"{name}: {figures}")
                    continue
                if drain.worker.id not in bars:
                    bars[drain.worker.id] = display.add_task(name, figures=figures)
                total, moved = (drain.total, drain.moved) if drain.total else (1, int(drain.is_over))
                display.update(bars[drain.worker.id], total=total, completed=moved, figures=figures)

        yield show
