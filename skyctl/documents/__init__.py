"""JSON and YAML documents to domain values and back, strict: those of HTTP, of the command line alone, and service
manifests."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.documents import cli as cli
    from skyctl.documents import http as http
    from skyctl.documents import manifest as manifest

__getattr__ = lazy.submodules(__name__)
