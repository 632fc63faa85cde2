"""The worker's token: the configured one until the manager hands over a new one, which is kept on disk before it is
used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re

from skyagent import files
from skyagent.settings import Settings

log = logging.getLogger(__name__)

FILE = "token.json"
TOKEN = re.compile(r"[!-~]{1,4096}")


class Tokens:
    """`current` is what is sent; `previous`, what was before it: should the current one be refused, it may be the good
    one.

    That is so where the manager did not note the first use of a new one, or its database was restored from a backup.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.state_folder
        self._is_private = settings.private
        # A host that was invited again has another one in its configuration than the kept one started from.
        self._origin = {
            "workerId": settings.worker_id,
            "configured": hashlib.sha256(settings.auth_token.encode()).hexdigest(),
        }
        if self._folder:
            files.forget_half(self._folder / FILE)
        kept = self._read()
        self.current = kept.get("token", settings.auth_token)
        self.previous = kept.get("previous")

    @property
    def metadata(self) -> dict[str, object]:
        """Return what a report says of tokens: whether a new one would be taken, and can be kept here."""
        folder = self._folder
        can_keep = folder and os.access(folder, os.W_OK | os.X_OK)
        return {"takesTokens": True} if can_keep and self._is_private else {}

    def adopt(self, token: object) -> None:
        """Keep a token that was handed over, then use it. Where it cannot be kept, it is handed over again."""
        if not (isinstance(token, str) and TOKEN.fullmatch(token)) or token == self.current or self._folder is None:
            return
        try:
            document = {**self._origin, "token": token, "previous": self.current}
            files.keep(self._folder / FILE, json.dumps(document).encode())
        except OSError as error:
            log.warning("action=token_not_kept path=%s reason=%r", self._folder / FILE, str(error))
            return
        self.current, self.previous = token, self.current
        log.info("action=token_replaced")

    def fall_back(self) -> None:
        """The current one was refused, and the one before was accepted."""
        if self.previous:
            self.current, self.previous = self.previous, None
            log.warning("action=new_token_refused reason='the one before it is still accepted'")

    def scrub(self, text: str) -> str:
        """The text without any token of ours."""
        for token in filter(None, (self.current, self.previous)):
            text = text.replace(token, "***")
        return text

    def _read(self) -> dict[str, str]:
        """The kept tokens that were handed over since the configuration was written; empty without any."""
        try:
            kept = json.loads((self._folder / FILE).read_text("utf-8")) if self._folder else {}
        except (OSError, ValueError, RecursionError):
            return {}
        good = isinstance(kept, dict) and self._origin.items() <= kept.items()
        usable = good and all(
            isinstance(kept.get(key), str) and TOKEN.fullmatch(kept[key]) for key in ("token", "previous")
        )
        return kept if usable else {}
