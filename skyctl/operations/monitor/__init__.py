"""What the leading monitor concludes and does, each in a term of its own."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.operations.monitor import alerts as alerts
    from skyctl.operations.monitor import health as health
    from skyctl.operations.monitor import migration_queue as migration_queue
    from skyctl.operations.monitor import migrations as migrations
    from skyctl.operations.monitor import services as services

__getattr__ = lazy.submodules(__name__)
