"""Where the API is, apart from the client that asks it, which takes its time to load."""

from pathlib import Path
from typing import NamedTuple

from skyctl.domain.text import without_secrets


class Address(NamedTuple):
    """Where the API is and by what one is let in: its URL, a token, the PEM certificate of the authority that alone may
    vouch for it, if not the system's own; or the unix socket on this machine, which lets in by who one is."""

    url: str
    token: str = ""
    authority: str = ""
    socket_path: Path | None = None

    def __repr__(self) -> str:
        return f"Address({without_secrets(self.url)!r})"

    @property
    def shown(self) -> str:
        """The address as people may see it."""
        return f"the socket {self.socket_path}" if self.socket_path else without_secrets(self.url)
