"""What makes a signing secret one that can be guessed."""

import re
from itertools import pairwise

LEAST_BYTES, LEAST_DIFFERENT, LONGEST_PART = 32, 8, 16
PLACEHOLDERS = re.compile("changeme|changethis|changeit|changein|replaceme|replacethis|yoursecret|yoursuper|yourjwt")
MAKE_ONE = "make one: openssl rand -hex 32"


def weakness(secret: str) -> str | None:
    """Say why a secret can be guessed from a token that it signed; None where nothing is known that makes it weak."""
    held = secret.encode("utf-8", "surrogateescape")
    if len(held) < LEAST_BYTES:
        return f"it has {len(held)} bytes, and {LEAST_BYTES} are the least"
    if len(set(held)) < LEAST_DIFFERENT or len({after - before for before, after in pairwise(held)}) < LEAST_DIFFERENT:
        return "it is a few characters over and over, or a sequence"
    if any(held[part:] == held[:-part] for part in range(1, LONGEST_PART + 1)):
        return "it is a short text over and over"
    if PLACEHOLDERS.search(re.sub(r"[^a-z]", "", secret.lower())):
        return "it is the placeholder of an example"
    return None
