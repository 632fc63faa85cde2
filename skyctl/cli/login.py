"""skyctl login, logout: what lets in to a manager elsewhere, kept and forgotten."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from skyctl.cli import version
from skyctl.cli.context import info
from skyctl.cli.contexts import MaybeNameArgument, meant, tell_what_comes_before
from skyctl.domain.errors import ManagerUntrusted, Refused, ValidationError
from skyctl.domain.text import printable
from skyctl.host import contexts, pinning
from skyctl.host.api_address import Address
from skyctl.host.api_client import ApiClient
from skyctl.host.contexts import Context, Contexts
from skyctl.settings import http_url

LONGEST_TOKEN = 4096
COMPARE = "compare it with what `skyctl tls show` says on the manager's host"


def login(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where `skyctl serve` is reached.")],
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the token from it, - for stdin; else it is asked for.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call this context; else the host of the URL.")] = None,
    fingerprint: Annotated[
        str | None, typer.Option(metavar="SHA256", help="Of the manager's own authority: pin that one, and do not ask.")
    ] = None,
) -> None:
    """Have commands ask a manager elsewhere: keep its address and your token as a context, the current one.

    The token is one of `skyctl tokens create`. It is tried first, and kept in a file that you alone can read. A
    manager with an authority of its own is known by that authority's fingerprint, which `skyctl tls show` shows there.
    """
    url = http_url("URL", url)
    contexts.check_transport("URL", url)
    called = _name(url, name)
    known = _known(contexts.read(), called, url)
    authority = _authority(url, known.authority if known else "", fingerprint)
    token = _token(token_file)
    me = version.me(Address(url, token, authority))

    def alter(held: Contexts) -> Contexts:
        _known(held, called, url)
        return held.holding(Context(called, url, token, authority))

    contexts.change(alter)
    info(ctx, f"logged in to {url} as {me['who']} ({me['role']}); the current context is {called}")
    if me["version"] != version.ours():
        info(ctx, f"warning: the manager is of version {me['version']}, this skyctl of {version.ours()}")
    tell_what_comes_before(ctx)


def logout(ctx: typer.Context, name: MaybeNameArgument = None) -> None:
    """Forget the token of a context. The token itself stays good until it ends, or `skyctl tokens revoke`."""
    left = meant(ctx, contexts.read(), name).name

    def alter(held: Contexts) -> Contexts:
        found = held.named("NAME", left)
        current = "" if held.current == left else held.current
        return held.holding(found._replace(token=""))._replace(current=current)

    contexts.change(alter)
    info(ctx, f"logged out of {left}")


def _name(url: str, name: str | None) -> str:
    """Return what the context is called. Raises ValidationError."""
    if name is not None:
        return contexts.checked_name("--name", name)
    return contexts.checked_name("URL, whose host is the name unless --name is given", _host(url).replace(":", "-"))


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _known(held: Contexts, name: str, url: str) -> Context | None:
    """Return the context of this name, if there is one. Raises Refused where it is that of another manager."""
    found = next((context for context in held.known if context.name == name), None)
    if found and found.url != url:
        raise Refused(
            f"--name: {name} is the context of {found.url}", f"give it another; or first: skyctl context remove {name}"
        )
    return found


def _authority(url: str, pinned: str, fingerprint: str | None) -> str:
    """Return the authority that vouches for the manager; empty where one of the system does, or none is needed.

    Raises Refused where it has another fingerprint, ManagerUnavailable, Abort where it was not agreed to, and
    ValidationError where nobody can be asked.
    """
    if not url.lower().startswith("https://"):
        if fingerprint is not None:
            raise ValidationError(f"--fingerprint: {url} has no certificate", "leave it out, or give the https:// URL")
        return ""
    said = None if fingerprint is None else pinning.checked_fingerprint("--fingerprint", fingerprint)
    if said is None and _is_trusted(url, pinned):
        return pinned
    fetched = pinning.fetch(url)
    shown = pinning.fingerprint(fetched)
    if said is not None:
        if not pinning.is_of(fetched, said):
            raise Refused(f"--fingerprint: that of {url} is another one: {shown}", f"do not go on; {COMPARE}")
        return fetched
    question = f"{url} has an authority of its own, with the SHA-256 fingerprint\n{shown}\n{COMPARE}. Is it the same?"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ValidationError(
            f"--fingerprint is missing, and there is no terminal to ask on: {url} has an authority of its own, {shown}",
            f"{COMPARE}, and give it",
        )
    typer.confirm(question, abort=True, err=True)
    return fetched


def _is_trusted(url: str, authority: str) -> bool:
    """Tell whether the manager's certificate is vouched for. Raises ManagerUnavailable."""
    with closing(ApiClient(Address(url, authority=authority))) as client:
        try:
            client.ask("GET", "/healthz")
        except ManagerUntrusted:
            return False
    return True


def _token(file: Path | None) -> str:
    """Return the token of a file, of stdin, or as it was typed. Raises ValidationError, which never shows it."""
    if file is None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ValidationError("--token-file is missing, and there is no terminal to ask on", "give it, - for stdin")
        source, text = "the token", str(typer.prompt("Token", hide_input=True, err=True))
    elif str(file) == "-":
        source, text = "--token-file: stdin", sys.stdin.read(LONGEST_TOKEN + 2)
    else:
        source = f"--token-file: {printable(file)}"
        try:
            with file.open(encoding="utf-8", errors="replace") as opened:
                text = opened.read(LONGEST_TOKEN + 2)
        except OSError as error:
            raise ValidationError(f"{source} cannot be read: {error.strerror}", "name the file of the token") from error
    token = text.strip()
    if not (token.isascii() and token.isprintable() and " " not in token and 0 < len(token) <= LONGEST_TOKEN):
        raise ValidationError(f"{source} is no token", "it is one word, as `skyctl tokens create` prints it")
    return token
