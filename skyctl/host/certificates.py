"""Our own certificate authority, and the certificate that `skyctl serve` shows, in the folder `tls` of the data folder.

Hosts trust the authority alone, so that the server's certificate can be renewed without any of them. Its times are
those of this machine's clock, as is the peers' judgement of them.
"""

import re
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from skyctl import host
from skyctl.domain.errors import Refused, SkyctlError, ValidationError
from skyctl.host import data_dir as data_folder

RENEWED_BEFORE = timedelta(days=60)
FAMILIES = (socket.AF_INET, socket.AF_INET6)
ALWAYS = ("localhost", "127.0.0.1", "::1")
NAME = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]{0,62}\.?)*", re.ASCII)
REPLACE_AUTHORITY = (
    "move the folder away and run `skyctl tls init`; every host must be invited anew then, to trust the new authority"
)
RENEW = "make it anew: skyctl tls init --renew, with --host for each further name that it was for"


@dataclass(frozen=True, slots=True)
class Certificate:
    """The contents of a certificate."""

    role: str
    subject: str
    names: Sequence[str]
    starts_at: datetime
    ends_at: datetime
    fingerprint: str
    path: Path


class Certificates:
    """The files of one data folder: `ca.pem`, `ca.key`, `server.pem`, `server.key`; keys are for their owner alone."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "tls"
        self.authority, self.authority_key = self.folder / "ca.pem", self.folder / "ca.key"
        self.server, self.server_key = self.folder / "server.pem", self.folder / "server.key"

    @property
    def are_there(self) -> bool:
        """Tell whether `skyctl tls init` was run."""
        return self.server.exists() and self.server_key.exists()

    @property
    def fit(self) -> bool:
        """Tell whether the server's certificate and key belong together: not while they are written, nor if that was
        broken off."""
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.server, self.server_key)
        except (OSError, ssl.SSLError):
            return False
        return True

    def pair(self) -> tuple[Path, Path]:
        """The server's certificate and its key. Raises SkyctlError where they do not belong together."""
        if not self.fit:
            raise SkyctlError(f"{self.server} does not belong to the key {self.server_key}", RENEW)
        return self.server, self.server_key

    def inspect(self) -> list[Certificate]:
        """The authority's and the server's; empty where there are none. Raises SkyctlError where one cannot be used."""
        if not self.are_there:
            return []
        certificates = [_read("authority", self.authority), _read("server", self.server)]
        self.pair()
        return certificates

    def make(self, names: Iterable[str], now: datetime, *, renew: bool = False) -> bool:
        """Make what is missing or cannot be used, or does not hold all these names, or all of the server's on request;
        whether anything was made.

        Raises Refused where the authority is about to end.
        """
        data_folder.prepare(self.folder, like=self.folder.parent)
        with data_folder.alone(self.folder):
            if not self.authority.exists():
                _make_authority(self, now)
            present = self._present()
            wanted = list(dict.fromkeys([*(present.names if present else ()), *names]))
            if present and self.fit and not renew and set(wanted) == set(present.names) and not is_due(present, now):
                return False
            _make_server(self, wanted, now)
            return True

    def renew_if_due(self, now: datetime) -> bool:
        """Renew the server's certificate where it is about to end, or its key is another one's; whether it was."""
        return (is_due(_read("server", self.server), now) or not self.fit) and self.make((), now)

    def _present(self) -> Certificate | None:
        try:
            return _read("server", self.server) if self.server.exists() else None
        except SkyctlError:
            return None

    def authority_for(self, api_url: str) -> str:
        """The authority by which a host trusts the server at this address, where our certificate is for it; else
        nothing."""
        host = (urlsplit(api_url).hostname or "").lower()
        ours = api_url.startswith("https://") and self.are_there and host in _read("server", self.server).names
        return self.authority.read_text(encoding="ascii") if ours else ""


def is_due(certificate: Certificate, now: datetime) -> bool:
    """Tell whether a certificate is to be renewed."""
    return certificate.ends_at - now <= RENEWED_BEFORE


def names_of_this_machine() -> list[str]:
    """Return the names by which hosts may reach this machine: its host name and its addresses."""
    import psutil  # here, since every command imports this module and few make a certificate

    interfaces = psutil.net_if_addrs().values()
    addresses = [
        address.address.partition("%")[0]
        for interface in interfaces
        for address in interface
        if address.family in FAMILIES
    ]
    usable = sorted({address for address in addresses if not ip_address(address).is_link_local})
    return [*ALWAYS, *filter(NAME.fullmatch, [socket.gethostname().lower()]), *usable]


def checked_name(value: str) -> str:
    """A host name or address, as certificates hold it. Raises ValidationError."""
    text = value.strip().lower().strip("[]")
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if len(text) > 253 or not NAME.fullmatch(text):
        raise ValidationError(f"--host: {value!r} is no host name and no address", "such as manager.example.com")
    return text


def _read(role: str, path: Path) -> Certificate:
    """Return what a certificate's file says. Raises SkyctlError where it cannot be used."""
    try:
        contents = host.x509.read(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no certificate"
        raise SkyctlError(
            f"{path} cannot be used: {reason}", RENEW if role == "server" else REPLACE_AUTHORITY
        ) from error
    return Certificate(role, *contents, path)


def _make_authority(files: Certificates, now: datetime) -> None:
    """Make the authority. Its key is written first: an authority is never there without it."""
    certificate, key = host.x509.make_authority(f"skyctl authority of {socket.gethostname()[:40]}", now)
    data_folder.write_private(files.authority_key, key)
    data_folder.write_private(files.authority, certificate)


def _make_server(files: Certificates, names: Sequence[str], now: datetime) -> None:
    """Make a new key and certificate for the server.

    A process that reads the two while they are written finds that they do not fit, and reads again. Raises Refused
    where the authority is about to end, SkyctlError where it cannot be used.
    """
    authority, signer = files.authority.read_bytes(), files.authority_key.read_bytes()
    ends_at = min(now + host.x509.LIFETIME, _read("authority", files.authority).ends_at)
    if ends_at - now <= RENEWED_BEFORE:
        raise Refused(f"the authority {files.authority} ends at {ends_at:%Y-%m-%d}", REPLACE_AUTHORITY)
    try:
        certificate, key = host.x509.make_server(names, now, ends_at, authority, signer)
    except (host.x509.ForeignKey, ValueError):
        raise SkyctlError(
            f"{files.authority_key} cannot be used: it is not a key that skyctl made", REPLACE_AUTHORITY
        ) from None
    data_folder.write_private(files.server_key, key)
    data_folder.write_private(files.server, certificate)
