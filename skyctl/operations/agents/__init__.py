"""The functions for hosts and their agents: invitations, registration, heartbeats, replies, upgrades."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.operations.agents import heartbeats as heartbeats
    from skyctl.operations.agents import install_links as install_links
    from skyctl.operations.agents import invitations as invitations
    from skyctl.operations.agents import registration as registration
    from skyctl.operations.agents import release_keys as release_keys
    from skyctl.operations.agents import reply as reply
    from skyctl.operations.agents import token_refusals as token_refusals
    from skyctl.operations.agents import upgrades as upgrades

__getattr__ = lazy.submodules(__name__)
