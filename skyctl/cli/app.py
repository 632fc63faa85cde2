"""The command line's entry: the commands, the global options, and how errors end."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from skyctl.cli import (
    adopt,
    alerts,
    bundles,
    cluster,
    completion,
    db,
    doctor,
    drains,
    events,
    migrations,
    monitor,
    policy,
    serve,
    services,
    systemd,
    tls,
    tokens,
    up,
    upgrades,
    workers,
)
from skyctl.cli.context import Options
from skyctl.domain.errors import ExitCode, SkyctlError
from skyctl.domain.text import printable, without_secrets
from skyctl.settings.table import TABLE

ENVIRONMENT = "Settings, from the environment or the --config file (YAML, keys in lower case):\n\n" + "\n\n".join(
    f"{' or '.join(setting.variables)}: {setting.meaning}" for setting in TABLE
)


class _Debug:
    """The state of --debug: read before the command runs, needed when it has failed."""

    is_on = False


app = typer.Typer(name="skyctl", rich_markup_mode=None, pretty_exceptions_enable=False, epilog=ENVIRONMENT)
app.command("up")(up.up)
app.command("serve")(serve.serve)
app.command("monitor")(monitor.monitor)
app.command("events")(events.events)
app.command("doctor")(doctor.doctor)
app.add_typer(db.app, name="db")
app.add_typer(tls.app, name="tls")
app.add_typer(systemd.app, name="systemd")
app.add_typer(workers.app, name="workers")
workers.app.command("drain")(drains.drain)
workers.app.command("undrain")(drains.undrain)
workers.app.command("remove")(drains.remove)
workers.app.command("rotate-token")(tokens.rotate_token)
workers.app.command("revoke")(tokens.revoke)
app.add_typer(tokens.secrets, name="secrets")
workers.app.command("upgrade")(upgrades.upgrade)
workers.app.command("bundle")(bundles.bundle)
app.add_typer(services.app, name="services")
services.app.command("adopt")(adopt.adopt)
app.add_typer(policy.app, name="policy")
app.add_typer(cluster.app, name="cluster")
app.add_typer(alerts.app, name="alerts")
app.add_typer(migrations.app, name="migrations")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # here, since no other command needs it

        sys.stdout.write(f"skyctl {version('skyctl')}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file (YAML); else SKYCTL_CONFIG.")] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Worker-node manager for container platforms.

    Hosts join by one script and report their load; skyctl shows who is healthy.
    """
    ctx.obj = Options(config, no_color, quiet, debug)
    _Debug.is_on = debug
    if ctx.invoked_subcommand is None:
        sys.stderr.write(ctx.get_help() + "\n")
        raise typer.Exit(ExitCode.USAGE)


def main() -> None:
    """Run the command line; ends the process with the exit code of the contract."""
    _prepare_streams()
    completion.replace_the_librarys()
    try:
        code = app(prog_name="skyctl", standalone_mode=False)
        sys.stdout.flush()
    except SkyctlError as error:
        code = _fail(error.message, error.hint, error.exit_code)
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "skyctl")
        code = _fail(error.format_message(), f"see `{path} --help`", error.exit_code)
    except typer.Abort:
        code = _fail("not confirmed", "nothing was changed", ExitCode.UNEXPECTED)
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
        code = _fail(str(error), "check the path and its permissions", ExitCode.UNEXPECTED)
    except Exception as error:  # noqa: BLE001 - the last door: no traceback reaches a user
        code = _fail(f"unexpected {type(error).__name__}", "run it again as `skyctl --debug ...`", ExitCode.UNEXPECTED)
    sys.exit(int(code or ExitCode.DONE))


def _prepare_streams() -> None:
    """Streams that take every character, also where they were closed or know ASCII alone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        else:
            stream.reconfigure(errors="backslashreplace")


def _give_up_stdout() -> None:
    """Write no more, since the interpreter's own flush would say the same error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, hint: str, code: int) -> int:
    if _Debug.is_on:
        lines = traceback.format_exc().splitlines()
        sys.stderr.write("".join(f"{printable(without_secrets(line))}\n" for line in lines))
    sys.stderr.write(f"error: {printable(message)}\n" + (f"hint: {printable(hint)}\n" if hint else ""))
    return code
