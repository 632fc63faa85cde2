"""The parts that several callers share: the context, lookups, candidates, outages, leadership, applying a
deployment."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.operations.shared import apply_deployment as apply_deployment
    from skyctl.operations.shared import authentication as authentication
    from skyctl.operations.shared import candidates as candidates
    from skyctl.operations.shared import context as context
    from skyctl.operations.shared import leadership as leadership
    from skyctl.operations.shared import lookup as lookup
    from skyctl.operations.shared import outages as outages
    from skyctl.operations.shared import token_issue as token_issue

__getattr__ = lazy.submodules(__name__)
