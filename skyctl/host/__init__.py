"""The parts that work on this host: PostgreSQL's process, files, users, signals, certificates, the service manager."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.host import certificates as certificates
    from skyctl.host import postgres as postgres
    from skyctl.host import x509 as x509

__getattr__ = lazy.submodules(__name__)
