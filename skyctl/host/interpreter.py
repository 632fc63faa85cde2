"""Other interpreters of ours: they import from where this one does, and from nowhere else.

Neither the folder in which a command was called nor the environment has a say, since either may be somebody else's.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import skyctl

# Nothing is imported that is not built in before the path is ours.
START = "import sys; sys.path[:] = {path!r}; del sys.argv[0]; import runpy; "
START += "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as `python -m` does, isolated."""
    return [sys.executable, "-I", "-c", START.format(path=list(_path())), module, *arguments]


def isolate_descendants() -> None:
    """Keep this folder out of the path of every interpreter that is started without a command of ours."""
    os.environ["PYTHONSAFEPATH"] = "1"


def _path() -> Iterator[str]:
    """Our own path, without the working folder, unless it is there that skyctl is."""
    ours = Path(skyctl.__file__).parents[1]
    try:
        here = Path.cwd()
    except FileNotFoundError:  # removed meanwhile: nothing is imported from it
        here = ours
    for entry in sys.path:
        if Path(entry).is_absolute() and (Path(entry) != here or here == ours):
            yield entry
