"""The progress of drains as it is shown while somebody waits: bars on a terminal, else a line at each change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from skyctl.cli.views import formats
from skyctl.documents.http import Document
from skyctl.domain.text import printable

Show = Callable[[Sequence[Document]], None]
Look = Callable[[Document], Document]


@contextmanager
def progress(screen: Console, look: Look, *, quiet: bool) -> Iterator[Show]:
    """Give the function that shows the drains' progress. Each reason why a container waits is printed once, and so is
    what is there, as `look` finds it, where nothing of ours is, but others are waited for."""
    printed: set[str] = set()
    bars: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=screen, disable=quiet or not screen.is_terminal) as display:

        def print_once(line: str) -> None:
            if line not in printed and not quiet:
                printed.add(line)
                display.console.print(line, soft_wrap=True)

        def show(drains: Sequence[Document]) -> None:
            for drain in drains:
                name, figures = printable(drain["workerName"]), formats.drain_counts(drain)
                for reason in drain["reasons"]:
                    print_once(f"{name}: {printable(reason)}")
                if _waits_for_others(drain) and not quiet and (there := there_text(look(drain))):
                    print_once(f"{name}: still there: {there}")
                if display.disable:
                    print_once(f"{name}: {figures}")
                    continue
                worker_id = drain["workerId"]
                if worker_id not in bars:
                    bars[worker_id] = display.add_task(name, figures=figures)
                all_of_it = formats.drain_total(drain)
                total, moved = (all_of_it, drain["moved"]) if all_of_it else (1, int(drain["over"]))
                display.update(bars[worker_id], total=total, completed=moved, figures=figures)

        yield show


def there_text(there: Document) -> str:
    """Return what is on a drained worker, in words; empty where it is known that nothing is."""
    ours, others, unknown = there["left"], there["others"], there["unknown"]
    theirs = [f"not ours: {', '.join(others)}"] if others else []
    nobody = [f"what else runs there nobody can say: {unknown}"] if unknown else []
    return printable("; ".join([*[", ".join(ours)] * bool(ours), *theirs, *nobody]))


def outcome_text(drain: Document) -> str:
    """Return what has become of a drain that was waited for, in a line."""
    left, what = len(drain["left"]) + drain["othersCount"], there_text(drain)
    outcome = f"{left} container{'s stay' if left != 1 else ' stays'} there, running: {what}"
    if not left:
        empty = "nothing of ours is left" if drain["unknown"] else "empty"
        outcome = "; ".join(filter(None, [f"{empty}, {drain['moved']} moved", what]))
    if drain["requestedAt"] is None:
        outcome = f"the drain was cancelled, {drain['moved']} moved; what is left was not looked for"
    return f"{printable(drain['workerName'])}: {outcome}"


def _waits_for_others(drain: Document) -> bool:
    """Tell whether nothing of ours is there any more, and it is not over."""
    return not (drain["over"] or drain["underWay"] or drain["waiting"] or drain["left"])
