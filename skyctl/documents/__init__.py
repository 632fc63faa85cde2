"""JSON and YAML documents to domain values and back, strict: those of HTTP, of the command line alone, and service
manifests."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.documents import api_tokens as api_tokens
    from skyctl.documents import changes as changes
    from skyctl.documents import cli as cli
    from skyctl.documents import contexts as contexts
    from skyctl.documents import heartbeats as heartbeats
    from skyctl.documents import http as http
    from skyctl.documents import installation as installation
    from skyctl.documents import manifest as manifest
    from skyctl.documents import records as records
    from skyctl.documents import service_files as service_files
    from skyctl.documents import swarm as swarm
    from skyctl.documents import times as times
    from skyctl.documents import workers as workers

__getattr__ = lazy.submodules(__name__)
