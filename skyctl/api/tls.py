"""The certificate of a running server: a renewed one is loaded for the next connections, and our own is renewed in
time."""

import logging
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from skyctl.domain.errors import SkyctlError
from skyctl.host.condition import Condition
from skyctl.host.vital import VitalLoop
from skyctl.operations.admin.certificates import Renewal

CHECK_SECONDS = 2.0
RENEW_SECONDS = 3600.0
ASKED_SECONDS = CHECK_SECONDS
LOADING_BOUND_SECONDS, RENEWING_BOUND_SECONDS = 10.0, 60.0

log = logging.getLogger(__name__)

_RENEWING = Condition(log, "certificate_not_renewed", "certificate_renewal_works")
_LOADING = Condition(log, "certificate_not_loaded", "certificates_load", quiet_seconds=0.0)


def follow(context: ssl.SSLContext, certificate: Path, key: Path, renew: Callable[[], Renewal] | None) -> None:
    """Load the files into the context whenever they change, until the process ends. `renew` is called every hour, and
    oftener while what it asked for is not there."""
    loader = _Loader(context, certificate, key)
    VitalLoop("certificate", loader.check, LOADING_BOUND_SECONDS, only_told=True).start()
    if renew:
        VitalLoop("renewal", partial(_renew, renew), RENEWING_BOUND_SECONDS, only_told=True).start()


class _Loader:
    """Loads the files where they have changed."""

    def __init__(self, context: ssl.SSLContext, certificate: Path, key: Path) -> None:
        self._context, self._certificate, self._key = context, certificate, key
        self._loaded = _state(certificate, key)

    def check(self) -> float:
        """Load what is new; return in how many seconds to look again."""
        state = _state(self._certificate, self._key)
        if state != self._loaded and _load(self._context, self._certificate, self._key):
            self._loaded = state
        return CHECK_SECONDS


def _renew(renew: Callable[[], Renewal]) -> float:
    """Renew the certificate if it is due; return in how many seconds to look again."""
    try:
        renewal = renew()
    except (SkyctlError, OSError) as error:
        _RENEWING.failed(str(error))
        return RENEW_SECONDS
    _RENEWING.works()
    if renewal is Renewal.RENEWED:
        log.info("action=certificate_renewed")
    return ASKED_SECONDS if renewal is Renewal.ASKED else RENEW_SECONDS


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> bool:
    """Load both files where they belong together; while they are being written they do not. Return whether they did."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        _LOADING.failed(f"{certificate}: {error}")
        return False
    _LOADING.works()
    log.info("action=certificate_loaded path=%s", certificate)
    return True


def _state(*paths: Path) -> tuple[object, ...]:
    try:
        files = [path.stat() for path in paths]
    except OSError:
        return ()
    return tuple((file.st_ino, file.st_mtime_ns, file.st_size) for file in files)
