"""From domain values to what is printed: tables, bars and words. No I/O but the terminal's."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.cli.views import certificates as certificates
    from skyctl.cli.views import diagnosis as diagnosis
    from skyctl.cli.views import doctor as doctor
    from skyctl.cli.views import drains as drains
    from skyctl.cli.views import events as events
    from skyctl.cli.views import formats as formats
    from skyctl.cli.views import swarm as swarm
    from skyctl.cli.views import terminal as terminal
    from skyctl.cli.views import top as top
    from skyctl.cli.views import workers as workers
    from skyctl.cli.views import workloads as workloads

__getattr__ = lazy.submodules(__name__)
