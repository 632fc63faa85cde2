"""From documents, as `-o json` prints and a server answers them, to what people see: tables, bars and words. No I/O but
the terminal's."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.cli.views import api_tokens as api_tokens
    from skyctl.cli.views import certificates as certificates
    from skyctl.cli.views import contexts as contexts
    from skyctl.cli.views import diagnosis as diagnosis
    from skyctl.cli.views import doctor as doctor
    from skyctl.cli.views import drains as drains
    from skyctl.cli.views import events as events
    from skyctl.cli.views import formats as formats
    from skyctl.cli.views import swarm as swarm
    from skyctl.cli.views import tables as tables
    from skyctl.cli.views import terminal as terminal
    from skyctl.cli.views import top as top
    from skyctl.cli.views import workers as workers
    from skyctl.cli.views import workloads as workloads
    from skyctl.cli.views import worst as worst

__getattr__ = lazy.submodules(__name__)
