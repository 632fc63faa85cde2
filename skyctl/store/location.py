"""Where the database is: its URL read, shown without passwords, and the way to it."""

import os
import re
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc

from skyctl.domain.errors import DatabaseUnavailable
from skyctl.domain.text import without_secrets

SECRET_PARAMETERS = ("password", "sslpassword")


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
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):  # whose words may hold the password
        raise DatabaseUnavailable(
            "the database URL cannot be read", "write it as postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        ) from None
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise DatabaseUnavailable(
            f"the database URL starts with {url.drivername}://", "skyctl works with PostgreSQL: postgresql://..."
        )
    return url.set(drivername="postgresql+psycopg")


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
