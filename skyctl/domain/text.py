"""Text that others wrote: what a database can hold of it, and how a terminal or a shell may be handed it; addresses
without the secrets in them. Times in words."""

import re
import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta

# What a terminal obeys or hides rather than shows: C0 and C1 controls, separators of lines, marks of direction, what
# has no width, annotations, tags, lone surrogates.
CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
PLAIN = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]*")
# A user and a password are what stands before the last @, since people forget to escape the others.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]{0,40}:(?:/|%2[Ff]){2})"
    r"(?P<rest>(?:(?!:(?:/|%2[Ff]){2})\S)*@[^\s\"'<>]*|[^\s\"'<>]*)"
)
_PARAMETER = re.compile(
    r"(?i)(?<![a-z])(?P<name>[a-z_.-]{0,40}(?:pass|passwd|password|pwd|secret|token|client_key|server_key))"
    r"(?P<is>\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&;,'\"]+)"
)
_PORT = re.compile(r"[0-9]{0,5}")
HIDDEN = "***"
UNITS = (("d", 86_400), ("h", 3600), ("m", 60))
NAMES_SHOWN = 20


def printable(value: object) -> str:
    """A text that others wrote, without what would make a terminal do something or show something else."""
    return CONTROL.sub(lambda control: ascii(control[0])[1:-1], str(value))


def printable_json(document: str) -> str:
    """A JSON document of the same meaning, its control characters escaped. Within JSON they stand in strings alone."""
    return CONTROL.sub(lambda control: control[0] if control[0] == "\n" else _escaped_utf16(control[0]), document)


def _escaped_utf16(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def is_plain(text: str) -> bool:
    """Tell whether a text is letters, digits, `.`, `-`, `_` alone, and no option: one word to every shell."""
    return PLAIN.fullmatch(text) is not None


def reference(name: str, identity: object) -> str:
    """Return by what to refer to something in a command: its name where that is plain, else its id."""
    return name if is_plain(name) else str(identity)


def quoted(text: object) -> str:
    """Return a text as one word of a command that people copy into a shell: on one line, and nothing in it is run."""
    return shlex.quote(printable(text))


def without_secrets(text: str) -> str:
    """Return a URL, a DSN, or a text with some in it, as people may see it: no password, whatever characters it is of,
    and no secret among the parameters."""
    head, separator, _ = text.partition("://")
    if separator and re.fullmatch(r"[A-Za-z][\w+.-]*", head) and "@" in text:
        return _PARAMETER.sub(_hide_value, _hide_user(f"{head}://", text[len(head) + 3 :]))
    urls_hidden = _URL.sub(lambda url: _hide_user(url["scheme"], url["rest"]), text)
    return _PARAMETER.sub(_hide_value, urls_hidden)


def without_secrets_of(address: str, words: str) -> str:
    """Return the words of a library that was given an address, without any part of the secrets in that: a password of
    odd characters is often taken for a port or a host."""
    shown = without_secrets(address)
    parts = {part for part in re.split(r"[^\w]+", address) if len(part) > 2} - set(re.split(r"[^\w]+", shown))
    return "its address cannot be used" if any(part in words for part in parts) else without_secrets(words)


def _hide_user(scheme: str, rest: str) -> str:
    before, at, after = rest.rpartition("@")
    user = re.split(r"[:/?#@\s]", before, maxsplit=1)[0]
    shown = user if user == before else f"{user}:{HIDDEN}"
    # Without an @, what looks like a port and is none is a password whose host was forgotten.
    host, colon, port = re.split(r"[/?#]", after, maxsplit=1)[0].rpartition(":")
    if not at and colon and not host.endswith(":") and "[" not in host and not _PORT.fullmatch(port):
        after = f"{host}:{HIDDEN}{after[len(host) + 1 + len(port) :]}"
    return f"{scheme}{shown}{at}{after}"


def _hide_value(parameter: re.Match[str]) -> str:
    return f"{parameter['name']}{parameter['is']}{HIDDEN}"


def storable(text: str) -> bool:
    """Tell whether PostgreSQL can hold the text: no NUL, no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def span(time: timedelta) -> str:
    """Return a time in its largest unit, such as `3h`."""
    seconds = max(0, round(time.total_seconds()))
    for unit, size in UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def ago(now: datetime, at: datetime) -> str:
    """Return how long ago a moment was, such as `3h ago`."""
    return f"{span(now - at)} ago"


def clock_offset(seconds: float) -> str:
    """Return how far a clock is from another one, such as `2.5s ahead`."""
    amount = f"{abs(seconds):.1f}s" if abs(seconds) < UNITS[-1][1] else span(timedelta(seconds=abs(seconds)))
    return f"{amount} {'ahead' if seconds >= 0 else 'behind'}"


def listed(names: Sequence[str]) -> str:
    """Names in a row; of many the first ones, and how many more."""
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
