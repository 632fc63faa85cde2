"""A row that nobody of ours would write keeps the monitor from nothing else."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from skyctl.domain.errors import SkyctlError
from skyctl.host.certificates import Certificates
from tests.conftest import Cli

pytestmark = pytest.mark.in_process

NOW = datetime.now(UTC)
P256, ODD_CURVE = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030101")
VERSION, ODD_VERSION = bytes.fromhex("020100"), bytes.fromhex("020105")
ODD_NAMES = {"address of X.400": "3004a3020500", "no names": "ff"}


def asked(names: str, exchanged: tuple[bytes, bytes] = (b"", b"")) -> str:
    """A request for names of these octets, some of its own octets exchanged."""
    alternative = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.17"), bytes.fromhex(names))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(alternative, False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    octets = made.public_bytes(Encoding.DER).replace(*exchanged, 1) if exchanged[0] else made.public_bytes(Encoding.DER)
    return x509_pem(octets)


def x509_pem(octets: bytes) -> str:
    body = base64.encodebytes(octets).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


REQUESTS = [
    *(pytest.param(asked(octets), id=name) for name, octets in ODD_NAMES.items()),
    pytest.param(asked("300b82096c6f63616c686f7374", (P256, ODD_CURVE)), id="curve"),
    pytest.param(asked("300b82096c6f63616c686f7374", (VERSION, ODD_VERSION)), id="version"),
]


@pytest.mark.parametrize("request_text", REQUESTS)
def test_a_request_of_odd_contents_is_refused(request_text: str, tmp_path: Path) -> None:
    ours = Certificates(tmp_path)
    ours.make(["localhost"], NOW)
    with pytest.raises(SkyctlError, match="the request or"):
        ours.sign(request_text, NOW)


def test_no_row_ends_the_monitor(cli: Cli, environment: dict[str, str], connection: psycopg.Connection) -> None:
    Certificates(Path(environment["SKYCTL_DATA_DIR"])).make(["localhost"], NOW)
    connection.execute(
        "INSERT INTO certificate_requests (id, request) VALUES ('1', %s)", (asked(ODD_NAMES["address of X.400"]),)
    )
    connection.execute("INSERT INTO retention_sweeps (name, after_key) VALUES ('events', 'x'), ('deployments', 'x')")
    connection.execute("INSERT INTO worker_events (kind, at) VALUES ('stopped', now() - interval '3 years')")
    done = cli("monitor", "--once")
    assert (done.returncode, "unexpected" in done.stderr) == (0, False), done.stderr
    [refusal] = connection.execute("SELECT refusal FROM certificate_requests").fetchone() or [None]
    assert refusal
    assert connection.execute("SELECT after_key FROM retention_sweeps WHERE name = 'events'").fetchone() == (None,)
