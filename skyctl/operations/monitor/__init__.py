"""The conclusions and orders of the leading monitor, all of them within its term."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.operations.monitor import alerts as alerts
    from skyctl.operations.monitor import deliveries as deliveries
    from skyctl.operations.monitor import evictions as evictions
    from skyctl.operations.monitor import health as health
    from skyctl.operations.monitor import migration_queue as migration_queue
    from skyctl.operations.monitor import migrations as migrations
    from skyctl.operations.monitor import node_claims as node_claims
    from skyctl.operations.monitor import services as services
    from skyctl.operations.monitor import token_rotation as token_rotation

__getattr__ = lazy.submodules(__name__)
