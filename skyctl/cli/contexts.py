"""skyctl context ...: the managers elsewhere that this user has logged in to."""

from typing import Annotated

import typer

from skyctl import documents
from skyctl.cli import views, way
from skyctl.cli.arguments import YesOption
from skyctl.cli.context import Output, OutputOption, confirm, emit, group, info
from skyctl.domain.errors import Refused, SkyctlError, ValidationError
from skyctl.host import contexts
from skyctl.host.contexts import LOCAL, Contexts

app = typer.Typer(rich_markup_mode=None)
group(app)


def complete(_ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the contexts that begin with `incomplete`."""
    try:
        return [context.name for context in contexts.read().known if context.name.startswith(incomplete)]
    except (SkyctlError, OSError):
        return []


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of a context.", autocompletion=complete)]
MaybeNameArgument = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Of a context; else the current one.", autocompletion=complete)
]


def meant(ctx: typer.Context, held: Contexts, name: str | None) -> contexts.Context:
    """Return the context of an argument; where it is left out, the one that other commands would take.

    Raises ContextNotFound, and ValidationError where there is none.
    """
    source, wanted = ("NAME", name) if name is not None else way.named(ctx)
    wanted = wanted or held.current
    if not wanted:
        raise ValidationError("NAME: there is no current context", "name one of `skyctl context list`")
    return held.named(source, wanted)


@app.command("list")
def list_contexts(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """List the contexts, and which is the current one. None of their tokens is shown."""
    held = contexts.read()
    document = documents.contexts.contexts_document(held)
    names = [context.name for context in held.known]
    emit(ctx, output, document, lambda: views.contexts.context_table(document), names)


@app.command("use")
def use(ctx: typer.Context, name: NameArgument) -> None:
    """Make a context the current one, which commands take where nothing else is named; `local` for none."""

    def alter(held: Contexts) -> Contexts:
        if name != LOCAL:
            _ = held.named("NAME", name).address
        return held._replace(current="" if name == LOCAL else name)

    contexts.change(alter)
    info(ctx, "no context is the current one" if name == LOCAL else f"{name} is the current context")
    tell_what_comes_before(ctx)


def tell_what_comes_before(ctx: typer.Context) -> None:
    """Say where commands go all the same, whatever the current context is."""
    if other := way.comes_before(ctx):
        info(ctx, f"note: commands go to {other} all the same")


@app.command("show")
def show(ctx: typer.Context, name: MaybeNameArgument = None, output: OutputOption = Output.TABLE) -> None:
    """Show a context: its URL and what vouches for it, never its token."""
    held = contexts.read()
    found = meant(ctx, held, name)
    document = documents.contexts.context_document(found, held.current)
    emit(ctx, output, document, lambda: views.contexts.context_details(document), [found.name])


@app.command("rename")
def rename(
    ctx: typer.Context,
    name: NameArgument,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its name from now on.")],
) -> None:
    """Give a context another name."""
    contexts.checked_name("NEW", new_name)

    def alter(held: Contexts) -> Contexts:
        found = held.named("NAME", name)
        if new_name in [context.name for context in held.known]:
            raise Refused(f"NEW: there is a context {new_name} already", "take another name")
        renamed = held.without(name).holding(found._replace(name=new_name))
        return renamed._replace(current=new_name if held.current == name else held.current)

    contexts.change(alter)
    info(ctx, f"{name} is called {new_name} now")


@app.command("remove")
def remove(ctx: typer.Context, name: NameArgument, yes: YesOption = False) -> None:
    """Forget a context, with its token and the authority that is pinned in it. On the manager nothing is changed."""
    found = contexts.read().named("NAME", name)
    confirm(f"Forget the context {name} ({found.url})?", yes=yes)
    contexts.change(lambda held: held.without(held.named("NAME", name).name))
    info(ctx, f"{name} is forgotten")
