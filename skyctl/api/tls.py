"""The certificate of a running server: one that was renewed is shown to whoever connects next, and ours is renewed in
time."""

import logging
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from skyctl.domain.errors import SkyctlError

LOOK_SECONDS = 2.0
RENEW_SECONDS = 3600.0

log = logging.getLogger(__name__)


def follow(context: ssl.SSLContext, certificate: Path, key: Path, renew: Callable[[], bool] | None) -> None:
    """Let the context have what is in the files, whenever they change, until the process ends. `renew` is asked every
    hour."""
    threading.Thread(target=_follow, args=[context, certificate, key, renew], name="tls", daemon=True).start()


def _follow(context: ssl.SSLContext, certificate: Path, key: Path, renew: Callable[[], bool] | None) -> None:
    seen, asked_at, pause = _state(certificate, key), 0.0, threading.Event()
    while True:
        if renew and (not asked_at or time.monotonic() - asked_at >= RENEW_SECONDS):
            asked_at = time.monotonic()
            _renew(renew)
        now = _state(certificate, key)
        if now != seen and _load(context, certificate, key):
            seen = now
        pause.wait(LOOK_SECONDS)


def _renew(renew: Callable[[], bool]) -> None:
    try:
        if renew():
            log.info("action=certificate_renewed")
    except (SkyctlError, OSError) as error:
        log.error("action=certificate_not_renewed reason=%r", str(error))


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> bool:
    """Load both files where they belong together, which they do not while somebody writes them."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        log.warning("action=certificate_not_loaded path=%s reason=%r", certificate, str(error))
        return False
    log.info("action=certificate_loaded path=%s", certificate)
    return True


def _state(*paths: Path) -> tuple[object, ...]:
    try:
        found = [path.stat() for path in paths]
    except OSError:
        return ()
    return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)
