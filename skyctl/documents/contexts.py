"""Contexts as `-o json` prints them: never a token."""

from skyctl.documents.http import Document
from skyctl.host import pinning
from skyctl.host.contexts import Context, Contexts


def context_document(context: Context, current: str) -> Document:
    """A context; `authority` is the fingerprint of the one that is pinned, null where the system's vouch for it."""
    return {
        "name": context.name,
        "url": context.url,
        "current": context.name == current,
        "loggedIn": bool(context.token),
        "authority": pinning.fingerprint(context.authority) if context.authority else None,
    }


def contexts_document(contexts: Contexts) -> Document:
    """All contexts."""
    rows = [context_document(context, contexts.current) for context in contexts.known]
    return {"contexts": rows, "total": len(rows)}
