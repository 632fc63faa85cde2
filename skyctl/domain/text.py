"""Text that others wrote: what a database can hold of it, and how a terminal may be shown it."""

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def printable(value: object) -> str:
    """A text that others wrote, without what would make a terminal do something."""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], str(value))


def storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: no NUL, no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
