"""From domain values to what is printed: tables, bars and words. No I/O but the terminal's."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.cli.views import diagnosis as diagnosis
    from skyctl.cli.views import terminal as terminal
    from skyctl.cli.views import top as top
    from skyctl.cli.views import workers as workers
    from skyctl.cli.views import workloads as workloads

__getattr__ = lazy.submodules(__name__)
