"""Our own certificate authority, and the certificate that `skyctl serve` shows, in the folder `tls` of the data folder.

Hosts trust the authority alone, so that the server's certificate can be renewed without any of them. Its times are
those of this machine's clock, as is the peers' judgement of them.
"""

import os
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
CLAIM = (
    "where it is yours, and not made by `serve`, give root its ca.key and ca.pem and run `skyctl systemd install`; "
    "else move the two away"
)
ADD_NAMES = "name each of them on the monitor's host: skyctl tls init --host NAME"
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
    """The files of one data folder: `ca.pem`, `ca.key`, `server.pem`, `server.key`, and the names that it is for; keys
    are for their owner alone.

    Where the monitor has a folder of its own beside it, the authority and the names are there, where `serve` may not
    enter. All that `serve` has is a copy of the authority's certificate, which nobody else takes for it.
    """

    def __init__(self, data_dir: Path) -> None:
        monitors = data_folder.apart_from(data_dir)
        self._is_apart = monitors is not None
        self._data_dir, self._home = data_dir, monitors or data_dir
        self._is_open = os.access(self._home, os.X_OK)
        self.folder, home = data_dir / FOLDER, self._home / FOLDER
        self.authority = (home if self._is_open else self.folder) / "ca.pem"
        self.authority_key, self._names = home / "ca.key", home / "names"
        self.server, self.server_key = self.folder / "server.pem", self.folder / "server.key"
        self._next_key, self._next_request = self.folder / "next.key", self.folder / "next.csr"

    @property
    def can_sign(self) -> bool:
        """Tell whether this user holds the authority's key."""
        return os.access(self.authority_key, os.R_OK)

    @property
    def are_there(self) -> bool:
        """Tell whether `skyctl tls init` was run."""
        return self.server.exists() and self.server_key.exists()

    @property
    def _signs_for_another(self) -> bool:
        """Whether this is the folder of a monitor, whose authority has signed for a `serve` of another folder."""
        return self.can_sign and self._names.exists() and not self.server.exists()

    @property
    def fit(self) -> bool:
        """Tell whether the server's certificate and key belong together: not while they are written, nor if that was
        broken off."""
        try:
            with self._opened(self._data_dir) as folder, ExitStack() as files:
                opened = [files.enter_context(folder.opened(path.name)) for path in (self.server, self.server_key)]
                certificate, key = (folders.link(file.fileno()) for file in opened)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate, key, password=bytes)  # of none is nobody asked at the terminal
        except (OSError, ssl.SSLError):
            return False
        return True

    def pair(self) -> tuple[Path, Path]:
        """The server's certificate and its key. Raises SkyctlError where they do not belong together."""
        if not self.fit:
            raise SkyctlError(f"{self.server} does not belong to the key {self.server_key}", RENEW)
        return self.server, self.server_key

    def inspect(self) -> list[Certificate]:
        """The authority's and the server's; the authority's alone where it is kept apart from `serve`, by the monitor;
        empty where there are none. Raises SkyctlError where one cannot be used."""
        if not self.are_there:
            return [self._certificate("authority", self.authority)] if self._signs_for_another else []
        certificates = [self._certificate("authority", self.authority), self._certificate("server", self.server)]
        self.pair()
        return certificates

    def make(self, names: Iterable[str], now: datetime, *, renew: bool = False) -> bool:
        """Make what is missing or cannot be used, or does not hold all these names, or all of the server's on request;
        whether anything was made.

        Raises Refused where the authority is about to end.
        """
        with ExitStack() as stack:
            folder = home = stack.enter_context(self._opened(self._data_dir, make=True))
            stack.enter_context(data_folder.alone(folder))
            if self._is_apart:
                home = stack.enter_context(self._opened(self._home, make=True))
            if not home.has(self.authority.name):
                if self._is_apart and folder.has(self.authority_key.name):
                    raise Refused(f"{self.authority} is missing, and there is an authority in {self.folder}", CLAIM)
                _make_authority(self, home, now)
            if self._is_apart:
                folder.write(self.authority.name, home.read(self.authority.name).decode("ascii"))
            present = self._present()
            wanted = list(dict.fromkeys([*self.names(), *names]))
            if present and self.fit and not renew and set(wanted) == set(present.names) and not is_due(present, now):
                return False
            home.write(self._names.name, "".join(f"{name}\n" for name in wanted))
            self._make_server(folder, wanted, now)
            self._forget_request(folder)
            return True

    def names(self) -> Sequence[str]:
        """The names that the server's certificate is for: those of each `skyctl tls init`, and where no other user may
        have written it, those in it."""
        try:
            kept = self._read(self._names).decode("ascii").split()
        except (OSError, UnicodeDecodeError):
            kept = []
        present = None if self._is_apart and self._is_open else self._present()
        return list(dict.fromkeys([*kept, *(present.names if present else ())]))

    def request(self) -> str:
        """The request for a certificate of the same names and a new key: the one that waits for its answer, or a new
        one. Raises SkyctlError where the present certificate cannot be used."""
        with self._opened(self._data_dir) as folder, data_folder.alone(folder):
            if not (folder.has(self._next_key.name) and folder.has(self._next_request.name)):
                request, key = host.x509.make_request(self._certificate("server", self.server).names)
                folder.write(self._next_key.name, key)
                folder.write(self._next_request.name, request)
            return folder.read(self._next_request.name).decode("ascii")

    def sign(self, request: str, now: datetime) -> tuple[str, Certificate]:
        """Sign what `serve` requests, if it is for names that root had certificates made for; return the certificate,
        and what it says.

        Raises Refused where it is for others, or the authority is about to end, SkyctlError where one cannot be used.
        """
        ends_at = self._end_of_new(now)
        authority, signer = self._signer()
        try:
            signed = host.x509.sign_request(request.encode(), self.names(), now, ends_at, authority, signer)
        except host.x509.ForeignNames as error:
            raise Refused(f"a certificate for {error}: not a name of `skyctl tls init`", ADD_NAMES) from None
        except (host.x509.ForeignKey, ValueError):
            raise SkyctlError(f"the request or {self.authority_key} cannot be used", REPLACE_AUTHORITY) from None
        return signed, Certificate("server", *host.x509.read(signed.encode()), self.server)

    def adopt(self, certificate: str) -> None:
        """Show the certificate that was signed for the request from now on. Raises SkyctlError where it is not of the
        request's key and our authority."""
        with self._opened(self._data_dir) as folder, data_folder.alone(folder):
            if not folder.has(self._next_key.name):  # another process of the same server was first
                return
            key = folder.read(self._next_key.name)
            good = host.x509.fits(certificate.encode(), key, self._read(self.authority))
            if good:
                folder.write(self.server_key.name, key.decode("ascii"))
                folder.write(self.server.name, certificate)
            self._forget_request(folder)
        if not good:
            raise SkyctlError(f"a certificate was signed that does not fit its key or {self.authority}", ADD_NAMES)

    def withdraw(self) -> None:
        """Forget the request that was refused; the next one has a new key."""
        with self._opened(self._data_dir) as folder, data_folder.alone(folder):
            self._forget_request(folder)

    def _forget_request(self, folder: Folder) -> None:
        for path in (self._next_request, self._next_key):
            if folder.has(path.name):
                os.unlink(path.name, dir_fd=folder.number)

    def _signer(self) -> tuple[bytes, bytes]:
        """The authority's certificate and its key. Raises SkyctlError where they cannot be read."""
        try:
            return self._read(self.authority), self._read(self.authority_key)
        except OSError as error:
            raise SkyctlError(f"{self.authority_key} cannot be used: {error.strerror}", "run this as root") from error

    def _end_of_new(self, now: datetime) -> datetime:
        """The time until which a new certificate is good. Raises Refused where the authority is about to end."""
        ends_at = min(now + host.x509.LIFETIME, self._certificate("authority", self.authority).ends_at)
        if ends_at - now <= RENEWED_BEFORE:
            raise Refused(f"the authority {self.authority} ends at {ends_at:%Y-%m-%d}", REPLACE_AUTHORITY)
        return ends_at

    def is_due(self, now: datetime) -> bool:
        """Tell whether the server's certificate is about to end, or its key is another one's."""
        return is_due(self._certificate("server", self.server), now) or not self.fit

    def renew_if_due(self, now: datetime) -> bool:
        """Renew the server's certificate where it is due; whether it was."""
        return self.is_due(now) and self.make((), now)

    def _make_server(self, folder: Folder, names: Sequence[str], now: datetime) -> None:
        """Make a new key and certificate for the server.

        A process that reads the two while they are written finds that they do not fit, and reads again. Raises Refused
        where the authority is about to end, SkyctlError where it cannot be used.
        """
        ends_at = self._end_of_new(now)
        authority, signer = self._signer()
        try:
            certificate, key = host.x509.make_server(names, now, ends_at, authority, signer)
        except (host.x509.ForeignKey, ValueError):
            raise SkyctlError(
                f"{self.authority_key} cannot be used: it is not a key that skyctl made", REPLACE_AUTHORITY
            ) from None
        folder.write(self.server_key.name, key)
        folder.write(self.server.name, certificate)

    def _present(self) -> Certificate | None:
        try:
            return self._certificate("server", self.server) if self.server.exists() else None
        except SkyctlError:
            return None

    def authority_for(self, api_url: str) -> str:
        """The authority by which a host trusts the server at this address, where our certificate is for it; else
        nothing."""
        host = (urlsplit(api_url).hostname or "").lower()
        ours = api_url.startswith("https://") and (self.are_there or self._signs_for_another) and host in self.names()
        return self._read(self.authority).decode("ascii") if ours else ""

    def authority_pem(self) -> str:
        """The authority's certificate; nothing where there is none."""
        try:
            return self._read(self.authority).decode("ascii")
        except OSError:
            return ""

    @contextmanager
    def _opened(self, data_dir: Path, *, make: bool = False) -> Iterator[Folder]:
        top = data_folder.opened(data_dir, make=True) if make else folders.open_folder(data_dir)
        with top as opened, opened.folder(FOLDER, make=make) as folder:
            yield folder

    def _read(self, path: Path) -> bytes:
        with self._opened(path.parent.parent) as folder:
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


def is_due(certificate: Certificate, now: datetime) -> bool:
    """Tell whether a certificate is to be renewed."""
    return certificate.ends_at - now <= RENEWED_BEFORE


def is_late(answer: str, now: datetime) -> bool:
    """Tell whether a certificate that was signed for a request is itself to be renewed by now."""
    try:
        return host.x509.read(answer.encode()).ends_at - now <= RENEWED_BEFORE
    except ValueError:
        return False


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
