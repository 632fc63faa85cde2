"""Where the database is: its URL read, shown without passwords, and the way to it."""

import os
import re
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from skyctl.domain.errors import DatabaseUnavailable
from skyctl.domain.text import without_secrets

SECRET_PARAMETERS = ("password", "sslpassword")

_SEVERAL_HOSTS = re.compile(r"(?P<before>[\w+]+://(?:.*@)?)(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<after>.*)", re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>\d*))?")


class Way(NamedTuple):
    """The way to a database: its hosts, or the folders of its sockets (none where the driver's default is a socket);
    the mode of TLS by the driver's names; whether a file of authorities is set that vouch for its certificate."""

    hosts: list[str]
    ssl_mode: str
    has_authority: bool


def parse(text: str) -> sa.URL:
    """Return a URL of PostgreSQL. Raises DatabaseUnavailable, which shows nothing of one that cannot be read."""
    if re.match(r"[^:]*://[^:/]*[:/].*@.*@", text, re.DOTALL):
        raise DatabaseUnavailable(
            "the database URL has more than one @: part of the password would be taken for the host",
            "write an @ within user, password and parameters as %40",
        )
    try:
        url = _read(text)
        PGDialect_psycopg().create_connect_args(url)  # type: ignore[no-untyped-call]
    except (exc.ArgumentError, ValueError):  # whose words may hold the password
        raise DatabaseUnavailable(
            "the database URL cannot be read",
            "write it as postgresql://USER:PASSWORD@HOST:5432/DATABASE, several servers as HOST:5432,HOST:5432",
        ) from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise DatabaseUnavailable(
            f"the database URL starts with {url.drivername}://", "skyctl works with PostgreSQL: postgresql://..."
        )
    return url.set(drivername="postgresql+psycopg")


def _read(text: str) -> sa.URL:
    """Return a URL; several hosts, as libpq has them, as its parameters `host` and `port`. Raises ValueError,
    ArgumentError."""
    several = _SEVERAL_HOSTS.fullmatch(text)
    if not several:
        return sa.make_url(text)
    servers = [_HOST.fullmatch(server) for server in several["hosts"].split(",")]
    if not all(servers):
        raise ValueError
    url = sa.make_url(several["before"] + several["after"])
    hosts = ",".join(server["host"].strip("[]") for server in servers if server)
    ports = ",".join(server["port"] or "" for server in servers if server)
    return url.set(query={**url.query, "host": hosts} | ({"port": ports} if ports.strip(",") else {}))


def arguments(url: sa.URL) -> dict[str, Any]:
    """Return the driver's arguments for a URL that was parsed."""
    _, named = PGDialect_psycopg().create_connect_args(url)  # type: ignore[no-untyped-call]
    return dict(named)


def shown(url: sa.URL) -> str:
    """Return the URL as people may see it."""
    public = url.set(drivername="postgresql").difference_update_query(SECRET_PARAMETERS)
    return without_secrets(public.render_as_string(hide_password=True))


def way(url: sa.URL) -> Way:
    """Return the way to a database, as the driver goes it: what the URL leaves open, its variables and defaults say."""

    def parameter(name: str) -> str:
        value = url.query.get(name, "")
        return value if isinstance(value, str) else ",".join(value)

    hosts = url.host or parameter("host") or parameter("hostaddr") or os.environ.get("PGHOST", "")
    authority = parameter("sslrootcert") or os.environ.get("PGSSLROOTCERT", "")
    mode = parameter("sslmode") or os.environ.get("PGSSLMODE")
    default = "verify-full" if authority == "system" else "prefer"
    return Way([host for host in hosts.split(",") if host], mode or default, bool(authority))
