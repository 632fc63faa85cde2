"""The command line's entry: the commands, the global options, and how errors end."""

import errno
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer
from typer.core import TyperGroup

from skyctl import host
from skyctl.cli import commands, completion
from skyctl.cli.grammar import Debug, Group, Options, take
from skyctl.cli.views import terminal
from skyctl.domain.errors import ExitCode, SkyctlError
from skyctl.domain.text import printable, without_secrets

MOST_COLUMNS = 110
app = typer.Typer(
    name="skyctl",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Settings: `skyctl help settings`.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MOST_COLUMNS},
)


def _print_version_alone(wanted: bool) -> None:
    if wanted:
        from skyctl.cli import version  # here, since it asks managers, too

        sys.stdout.write(version.line())
        raise typer.Exit


def _complete_context(ctx: typer.Context, incomplete: str) -> list[str]:
    from skyctl.cli import contexts  # here, since few calls complete one

    return contexts.complete(ctx, incomplete)


@app.callback(cls=Group, invoke_without_command=True)
def root(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file (YAML); else SKYCTL_CONFIG.")] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    utc: Annotated[bool, typer.Option("--utc", help="Show times in UTC; else in local time.")] = False,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The manager to ask: a name of `skyctl login`, local for this host; else SKYCTL_CONTEXT.",
            autocompletion=_complete_context,
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version_alone, is_eager=True)
    ] = False,
) -> None:
    """Worker-node manager for container platforms.

    Hosts join by one script and report their load; skyctl shows who is healthy. The options below may stand anywhere on
    the line.
    """
    take(ctx, Options(config, no_color, quiet, debug, utc, context))
    if ctx.invoked_subcommand is None:
        sys.stderr.write(ctx.get_help() + "\n")
        raise typer.Exit(ExitCode.USAGE)


def program() -> TyperGroup:
    """Return all commands, as they are typed and shown."""
    command = cast(TyperGroup, typer.main.get_command(app))
    commands.prepare(command)
    return command


def main() -> None:
    """Run the command line; ends the process with the exit code of the contract."""
    _prepare_streams()
    completion.replace_the_librarys()
    try:
        code = program()(prog_name="skyctl", standalone_mode=False)
        sys.stdout.flush()
    except SkyctlError as error:
        code = _fail(error.message, error.hint, error.exit_code)
    except typer.TyperException as error:
        from skyctl.cli import mistakes  # here, since few calls make one

        code = _fail(*mistakes.in_words(error), error.exit_code)
    except typer.Abort:
        code = _fail("not confirmed", "nothing was changed", ExitCode.REFUSED)
    except BrokenPipeError:
        _give_up_stdout()
        code = ExitCode.DONE
    except SystemExit as ended:
        code = ended.code
        if isinstance(ended.__context__, BrokenPipeError):  # typer's way to end then
            _give_up_stdout()
            code = ExitCode.DONE
    except OSError as error:
        _give_up_stdout()
        code = _fail(*_in_words(error), ExitCode.UNEXPECTED)
    except Exception as error:  # noqa: BLE001 - the last door: no traceback reaches a user
        code = _fail(f"unexpected {type(error).__name__}", "run it again as `skyctl --debug ...`", ExitCode.UNEXPECTED)
    sys.exit(int(code or ExitCode.DONE))


def _in_words(error: OSError) -> tuple[str, str]:
    """Return what the system refused, and what to do about it."""
    words = error.strerror or str(error)
    if error.filename is None:
        return words, "make room there" if error.errno == errno.ENOSPC else "see `skyctl --debug ...`"
    if isinstance(error, PermissionError):
        whose, remedy = host.owners.kept_out(Path(os.fsdecode(error.filename)))
        return f"{error.filename}: {words}: {whose}", remedy
    return f"{error.filename}: {words}", "check the path"


def _prepare_streams() -> None:
    """Streams that take every character, also where they were closed or know ASCII alone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        else:
            stream.reconfigure(errors="backslashreplace")
    # What cannot be said changes nothing of how a command ends.
    sys.stderr = cast(TextIO, terminal.Outlet(sys.stderr))


def _give_up_stdout() -> None:
    """Write no more, since the interpreter's own flush would say the same error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, hint: str, code: int) -> int:
    if Debug.is_on:
        lines = traceback.format_exc().splitlines()
        sys.stderr.write("".join(f"{printable(without_secrets(line))}\n" for line in lines))
    sys.stderr.write(f"error: {printable(message)}\n" + (f"hint: {printable(hint)}\n" if hint else ""))
    return code
