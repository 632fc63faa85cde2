"""skyctl help: of a command, and of the settings."""

import sys
from typing import Annotated, Any

import typer

from skyctl.cli.grammar import Group
from skyctl.settings.table import TABLE

SETTINGS = "settings"
ORDER = (
    "Weakest first: the default; the file of --config or SKYCTL_CONFIG, in YAML, by the key; the environment, by the "
    "variable. `skyctl doctor` says what is wrong with them."
)


def show_help(
    ctx: typer.Context,
    words: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="Its words; or `settings`.")] = None,
) -> None:
    """Show the help of a command, as its --help does; of `settings` what each of them means."""
    context: Any = ctx.find_root()
    if words == [SETTINGS]:
        sys.stdout.write(_settings(context))
        return
    for word in words or ():
        if not isinstance(context.command, Group):
            break  # behind a command stand its arguments
        _, command, _ = context.command.resolve_command(context, [word])
        context = command.context_class(command, info_name=word, parent=context)
    sys.stdout.write(context.get_help() + "\n")


def _settings(context: Any) -> str:
    """The page of the settings, as wide as the others."""
    page = context.make_formatter()
    page.write_text(ORDER)
    for setting in TABLE:
        page.write_paragraph()
        page.write_text(" or ".join(setting.variables))
        default = f" Default: {setting.default}." if setting.default else ""
        with page.indentation():
            page.write_text(f"{setting.key}: {setting.meaning}.{default}")
    return str(page.getvalue())
