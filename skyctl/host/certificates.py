"""Our own certificate authority, and the certificate that `skyctl serve` shows, in the folder `tls` of the data folder.

Hosts trust the authority alone, so that the server's certificate can be renewed without any of them. Its times are
those of this machine's clock, as is the peers' judgement of them.
"""

import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from skyctl import host
from skyctl.domain.errors import Refused, SkyctlError, ValidationError
from skyctl.host import data_dir as data_folder
from skyctl.host import folders
from skyctl.host.folders import Folder

FOLDER = "tls"
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
        self._data_dir = data_dir
        self.folder = data_dir / FOLDER
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
            with self._opened() as folder, ExitStack() as files:
                opened = [files.enter_context(folder.opened(path.name)) for path in (self.server, self.server_key)]
                certificate, key = (folders.link(file.fileno()) for file in opened)
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
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
        certificates = [self._certificate("authority", self.authority), self._certificate("server", self.server)]
        self.pair()
        return certificates

    def make(self, names: Iterable[str], now: datetime, *, renew: bool = False) -> bool:
        """Make what is missing or cannot be used, or does not hold all these names, or all of the server's on request;
        whether anything was made.

        Raises Refused where the authority is about to end.
        """
        with self._opened(make=True) as folder, data_folder.alone(folder):
            if not folder.has(self.authority.name):
                _make_authority(self, folder, now)
            present = self._present()
            wanted = list(dict.fromkeys([*(present.names if present else ()), *names]))
            if present and self.fit and not renew and set(wanted) == set(present.names) and not is_due(present, now):
                return False
            self._make_server(folder, wanted, now)
            return True

    def renew_if_due(self, now: datetime) -> bool:
        """Renew the server's certificate where it is about to end, or its key is another one's; whether it was."""
        return (is_due(self._certificate("server", self.server), now) or not self.fit) and self.make((), now)

    def _present(self) -> Certificate | None:
        try:
            return self._certificate("server", self.server) if self.server.exists() else None
        except SkyctlError:
            return None

    def authority_for(self, api_url: str) -> str:
        """The authority by which a host trusts the server at this address, where our certificate is for it; else
        nothing."""
        host = (urlsplit(api_url).hostname or "").lower()
        ours = (
            api_url.startswith("https://") and self.are_there and host in self._certificate("server", self.server).names
        )
        return self._read(self.authority).decode("ascii") if ours else ""

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[Folder]:
        top = data_folder.opened(self._data_dir, make=True) if make else folders.open_folder(self._data_dir)
        with top as data_dir, data_dir.folder(FOLDER, make=make) as folder:
            yield folder

    def _read(self, path: Path) -> bytes:
        with self._opened() as folder:
            return folder.read(path.name)

    def _certificate(self, role: str, path: Path) -> Certificate:
        """Return what a certificate's file says. Raises SkyctlError where it cannot be used."""
        try:
            contents = host.x509.read(self._read(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no certificate"
            raise SkyctlError(
                f"{path} cannot be used: {reason}", RENEW if role == "server" else REPLACE_AUTHORITY
            ) from error
        return Certificate(role, *contents, path)

    def _make_server(self, folder: Folder, names: Sequence[str], now: datetime) -> None:
        """Make a new key and certificate for the server.

        A process that reads the two while they are written finds that they do not fit, and reads again. Raises Refused
        where the authority is about to end, SkyctlError where it cannot be used.
        """
        authority, signer = folder.read(self.authority.name), folder.read(self.authority_key.name)
        ends_at = min(now + host.x509.LIFETIME, self._certificate("authority", self.authority).ends_at)
        if ends_at - now <= RENEWED_BEFORE:
            raise Refused(f"the authority {self.authority} ends at {ends_at:%Y-%m-%d}", REPLACE_AUTHORITY)
        try:
            certificate, key = host.x509.make_server(names, now, ends_at, authority, signer)
        except (host.x509.ForeignKey, ValueError):
            raise SkyctlError(
                f"{self.authority_key} cannot be used: it is not a key that skyctl made", REPLACE_AUTHORITY
            ) from None
        folder.write(self.server_key.name, key)
        folder.write(self.server.name, certificate)


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


def _make_authority(files: Certificates, folder: Folder, now: datetime) -> None:
    """Make the authority. Its key is written first: an authority is never there without it."""
    certificate, key = host.x509.make_authority(f"skyctl authority of {socket.gethostname()[:40]}", now)
    folder.write(files.authority_key.name, key)
    folder.write(files.authority.name, certificate)
