"""The parts that work on this host: PostgreSQL's process, files, users, signals, certificates, the service manager."""

from typing import TYPE_CHECKING

from skyctl import lazy

if TYPE_CHECKING:
    from skyctl.host import admin_socket as admin_socket
    from skyctl.host import api_client as api_client
    from skyctl.host import certificates as certificates
    from skyctl.host import contexts as contexts
    from skyctl.host import data_dir as data_dir
    from skyctl.host import folders as folders
    from skyctl.host import http_probe as http_probe
    from skyctl.host import interpreter as interpreter
    from skyctl.host import keyring as keyring
    from skyctl.host import locks as locks
    from skyctl.host import logs as logs
    from skyctl.host import parent_process as parent_process
    from skyctl.host import pinning as pinning
    from skyctl.host import postgres as postgres
    from skyctl.host import postgres_binaries as postgres_binaries
    from skyctl.host import private_file as private_file
    from skyctl.host import release_key as release_key
    from skyctl.host import sd_notify as sd_notify
    from skyctl.host import signals as signals
    from skyctl.host import signatures as signatures
    from skyctl.host import system_users as system_users
    from skyctl.host import x509 as x509

__getattr__ = lazy.submodules(__name__)
