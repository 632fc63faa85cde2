"""The authority that a manager sends: one certificate and nothing beside it, known by its fingerprint."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from skyctl.domain.errors import ManagerUnavailable, ValidationError
from skyctl.host import pinning, x509
from tests.support import certificates

ONE, OTHER = (x509.make_authority(name, datetime.now(UTC))[0] for name in ("one", "other"))
Answering = Callable[[int, str], str]


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """Start a server that anybody could have put there: TLS by a certificate of its own, and one answer to all."""
    with ExitStack() as stack:

        def start(status: int, content: str) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content.encode())))
                    self.end_headers()
                    self.wfile.write(content.encode())

                def log_message(self, *_: object) -> None:
                    pass

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            context = certificates.server_context(certificates.authority(tmp_path, "any"))
            server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"https://127.0.0.1:{server.server_port}/base"

        yield start


def test_one_is_taken_as_it_is_whatever_its_lines(answering: Answering) -> None:
    for sent in (ONE, f"\n{ONE}\n", ONE.replace("\n", "\r\n")):
        fetched = pinning.fetch(answering(200, sent))
        assert pinning.fingerprint(fetched) == x509.read(ONE.encode()).fingerprint
        assert fetched == ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(ONE))


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, ONE + OTHER),
        (200, f"{ONE}more"),
        (200, f"before\n{ONE}"),
        (200, ""),
        (200, "<html>"),
        (200, "-----BEGIN CERTIFICATE-----\n=\n-----END CERTIFICATE-----"),
        (200, "ä"),
        (404, ONE),
        (301, ONE),
    ],
)
def test_what_is_not_one_certificate_is_none(answering: Answering, status: int, content: str) -> None:
    """Of two the fingerprint would be one's, and both would be believed."""
    with pytest.raises(ManagerUnavailable, match="no authority of its own to show"):
        pinning.fetch(answering(status, content))


def test_who_does_not_answer_is_named() -> None:
    with pytest.raises(ManagerUnavailable, match=r"^https://127\.0\.0\.1:1 does not answer"):
        pinning.fetch("https://127.0.0.1:1")


def test_a_fingerprint_is_read_as_people_write_it() -> None:
    shown = pinning.fingerprint(ONE)
    for said in (shown, shown.lower(), shown.replace(":", ""), f" {shown.replace(':', ' ')}\n"):
        assert pinning.is_of(ONE, pinning.checked_fingerprint("--fingerprint", said))
        assert not pinning.is_of(OTHER, pinning.checked_fingerprint("--fingerprint", said))
    for said in ("", "sha256", shown[:-3], f"{shown}:00", shown.replace(shown[0], "g")):
        with pytest.raises(ValidationError, match="--fingerprint"):
            pinning.checked_fingerprint("--fingerprint", said)
