"""The vocabulary: frozen values, enums and errors. No I/O, no clock, no behaviour beyond their own arithmetic."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.domain import checks as checks
    from skyctl.domain import cluster as cluster
    from skyctl.domain import drains as drains
    from skyctl.domain import engine as engine
    from skyctl.domain import errors as errors
    from skyctl.domain import event_filter as event_filter
    from skyctl.domain import events as events
    from skyctl.domain import evictions as evictions
    from skyctl.domain import logs as logs
    from skyctl.domain import states as states
    from skyctl.domain import text as text
    from skyctl.domain import tokens as tokens
    from skyctl.domain import workloads as workloads

__getattr__ = lazy.submodules(__name__)
