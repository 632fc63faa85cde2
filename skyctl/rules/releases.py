"""What is signed of an agent's release; each agent makes the same bytes of what it is offered."""


def statement(version: str, sha256: str, size: int) -> bytes:
    """The bytes that are signed: the version, and the archive by its SHA-256 and size."""
    return f"skyagent release\n{version}\n{sha256}\n{size}\n".encode()
