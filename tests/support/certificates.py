"""Certificates for servers of the tests, each of which vouches for itself."""

import ssl
import subprocess
from pathlib import Path

from tests.support.helpers import PATIENCE_SECONDS, need


def authority(folder: Path, name: str, address: str = "127.0.0.1", *before: str) -> Path:
    """A certificate for a name and an address, good from now for 90 days; its key beside it. `before`: the command that
    runs the making."""
    certificate = folder / f"{name}.pem"
    subprocess.run(
        [
            *before,
            need("openssl"),
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "90",
            "-keyout",
            folder / f"{name}.key",
            "-out",
            certificate,
            "-subj",
            f"/CN={name}",
            "-addext",
            f"subjectAltName=IP:{address},DNS:{name}",
        ],
        check=True,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )
    return certificate


def server_context(certificate: Path) -> ssl.SSLContext:
    """What a server with this certificate speaks TLS with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context
