"""skyctl systemd ..."""

import os
import sys
from typing import Annotated

import typer

from skyctl.cli import way
from skyctl.cli.context import group, info, options

app = typer.Typer(rich_markup_mode=None)
group(app)


@app.command("install")
def install(
    ctx: typer.Context,
    user: Annotated[
        str | None,
        typer.Option(
            show_default="the installed one, else skyctl",
            help="System user of serve; the monitor's is called as it with -monitor. Made where missing.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Take them away again; settings and data are kept.")
    ] = False,
) -> None:
    """Run `serve` and `monitor` as services of this host: hardened, started at boot, and again when they end.

    They are two system users: `serve`, which hosts talk to, holds neither the engine nor the authority's key nor the
    channels of alerts. Settings come from /etc/skyctl/skyctl.env, and for the monitor alone from monitor.env beside it;
    both are made from the present environment where they are missing. May be run any number of times.
    """
    from skyctl import units  # here, since no other command makes units of the service manager

    way.refuse_named(ctx)
    config = options(ctx).config
    environment = os.environ | ({"SKYCTL_CONFIG": str(config)} if config else {})
    services = units.Services(user or units.installed_user(), environment)
    services.check(changes=not dry_run)
    changed = False
    for change in services.uninstall() if uninstall else services.install():
        changed = True
        if not dry_run:
            change.make()
        sys.stdout.write(f"would have {change.outcome}\n" if dry_run else f"{change.outcome}\n")
        sys.stdout.flush()
    if not changed:
        sys.stdout.write("no change\n")
    kept = [str(path) for path in units.KEPT if path.exists()] if uninstall else []
    if kept:
        info(ctx, f"note: {', '.join(kept)} stay: no other copy of their secrets may exist")
