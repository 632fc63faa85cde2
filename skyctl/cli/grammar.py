"""How a command line is read: groups that know other tools' commands, and global options wherever they stand."""

import os
import time
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from typer.core import TyperGroup


@dataclass(frozen=True, slots=True)
class Options:
    """The global options."""

    config: Path | None = None
    no_color: bool = False
    quiet: bool = False
    debug: bool = False
    utc: bool = False
    context: str | None = None


class Debug:
    """The state of --debug: read before the command runs, needed when it has failed."""

    is_on = False


class Group(TyperGroup):
    """A group of commands, which are `Commands`."""

    commands: Any

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command of the first word. Raises ValidationError that names the one that was meant."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            from skyctl.cli import mistakes  # here, since few calls make one

            raise mistakes.unknown_command(ctx.command_path, args, self.commands)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the library hands it over
        """Write the commands with what each does, in whole sentences."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands.summary(name)) for name in self.commands])

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the library hands it over
        """Return the names of the commands; none is loaded for that."""
        return list(self.commands)


_CALLED = {"int": "N", "int range": "N", "path": "PATH", "directory": "PATH", "float range": "N", "str": "TEXT"}


def name_values(command: Any) -> None:
    """Have the help of a command call values what people call them, and not by Python's types."""
    for parameter in command.params:
        if parameter.param_type_name == "argument" and parameter.nargs != 1:
            parameter.metavar = f"{parameter.metavar}..."
        elif parameter.metavar is None:
            parameter.metavar = _CALLED.get(parameter.type.name)


def accept(command: Any, program: Any) -> None:
    """Have a command accept the global options of its program, too."""
    taken = {name for parameter in command.params for name in parameter.opts}
    for option in program.params:
        if option.name in Options.__slots__ and not taken.intersection(option.opts):
            anywhere = copy(option)
            anywhere.expose_value, anywhere.hidden, anywhere.callback = False, True, _note
            command.params.append(anywhere)


def take(ctx: Any, options: Options) -> None:
    """Have the global options count from here on."""
    ctx.obj, Debug.is_on = options, options.debug
    if options.utc:
        os.environ["TZ"] = "UTC"
        time.tzset()


def _note(ctx: Any, option: Any, value: Any) -> Any:
    """Add an option that was given behind the command to those before it."""
    if value:
        take(ctx, replace(ctx.find_object(Options) or Options(), **{option.name: value}))
    return value
