"""A loop that stands still is told by /readyz; heartbeats need none of the certificate, so the process lives on."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from skyctl.host.certificates import Certificates
from tests.api.test_tls import trusting
from tests.conftest import Cli, Process
from tests.support.helpers import PATIENCE_SECONDS, eventually

Serve = Callable[..., tuple[str, Process]]
FED = b"WATCHDOG=1"


@contextmanager
def never_read_to_its_end(file: Path) -> Iterator[None]:
    """Whoever opens the file for the length of the block waits until its end, as with a file server that hangs."""
    kept, fifo = file.with_suffix(".kept"), file.with_suffix(".fifo")
    os.link(file, kept)
    os.mkfifo(fifo)
    os.link(fifo, new := file.with_suffix(".new"))
    new.replace(file)
    try:
        yield
    finally:
        kept.replace(file)
        with suppress(OSError):
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


def test_a_certificate_that_cannot_be_read_is_told_and_the_watchdog_fed_on(
    cli: Cli, serve: Serve, tmp_path: Path
) -> None:
    certificates = Certificates(tmp_path / "data")
    assert cli("tls", "init").returncode == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE_SECONDS)
        url, _ = serve(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1200000")
        while supervisor.recv(4096) != FED:
            pass
        with httpx.Client(base_url=url, verify=trusting(certificates.authority), timeout=PATIENCE_SECONDS) as client:
            assert client.get("/readyz").status_code == 200
            with never_read_to_its_end(certificates.server):
                eventually(lambda: client.get("/readyz").status_code == 503)
                error = client.get("/readyz").json()["error"]
                assert error["message"] == "what must go on stands still: certificate"
                assert client.get("/healthz").status_code == 200
                supervisor.setblocking(False)
                with suppress(BlockingIOError):
                    while supervisor.recv(4096):
                        pass
                supervisor.settimeout(PATIENCE_SECONDS)
                assert supervisor.recv(4096) == FED
            eventually(lambda: client.get("/readyz").status_code == 200)
