"""The functions for administrators: everything behind the commands and the routes that are theirs."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.operations.admin import adoption as adoption
    from skyctl.operations.admin import alerts as alerts
    from skyctl.operations.admin import api_tokens as api_tokens
    from skyctl.operations.admin import bundles as bundles
    from skyctl.operations.admin import certificates as certificates
    from skyctl.operations.admin import cordons as cordons
    from skyctl.operations.admin import deploy as deploy
    from skyctl.operations.admin import diagnosis as diagnosis
    from skyctl.operations.admin import doctor as doctor
    from skyctl.operations.admin import doctor_database as doctor_database
    from skyctl.operations.admin import drain_plans as drain_plans
    from skyctl.operations.admin import drains as drains
    from skyctl.operations.admin import events as events
    from skyctl.operations.admin import migrations as migrations
    from skyctl.operations.admin import node_claims as node_claims
    from skyctl.operations.admin import overview as overview
    from skyctl.operations.admin import prospects as prospects
    from skyctl.operations.admin import schema as schema
    from skyctl.operations.admin import services as services
    from skyctl.operations.admin import silences as silences
    from skyctl.operations.admin import swarm_orders as swarm_orders
    from skyctl.operations.admin import swarm_services as swarm_services
    from skyctl.operations.admin import tokens as tokens
    from skyctl.operations.admin import workers as workers

__getattr__ = lazy.submodules(__name__)
