"""skyctl up, serve, monitor, doctor, db ..."""

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skyctl import documents
from skyctl.cli import views
from skyctl.cli.context import Output, OutputOption, console, emit, group, info, open_context, options, settings
from skyctl.operations import admin

if TYPE_CHECKING:
    from skyctl.operations.admin.schema import SchemaState

db = typer.Typer(help="The database: set it up, check it.", rich_markup_mode=None)
group(db)


def up(ctx: typer.Context) -> None:
    """Run everything in the foreground: database, API, monitor, and this machine as the first worker.

    Without a database URL the embedded PostgreSQL is used. Ctrl-C stops all of it.
    """
    from skyctl.cli.up import Supervisor

    Supervisor(settings(ctx), console(ctx, stderr=True), options(ctx).config).run()


def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 8642,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate, with its chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that share the port.")] = 1,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a proxy in front, whose X-Forwarded-For is believed; repeatable."),
    ] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Plain HTTP, as for a proxy in front that ends TLS.")
    ] = False,
    inherited: Annotated[int | None, typer.Option("--listener", hidden=True)] = None,
) -> None:
    """Run the HTTP API that hosts report to. SIGTERM ends it once what was accepted is answered.

    It speaks TLS with the certificate of `skyctl tls init`, or with another one that is given; plain HTTP only on this
    machine.
    """
    from skyctl import wiring
    from skyctl.api import server
    from skyctl.host.logs import to_stderr

    to_stderr()
    given = settings(ctx)
    if not (tls_cert or tls_key or insecure_http or inherited):
        tls_cert, tls_key = server.own_certificate(given, host)
    server.check_tls(tls_cert, tls_key)
    server.check_proxies(proxy or ())
    listener = server.listen(host, port) if inherited is None else socket.socket(fileno=inherited)
    with wiring.database_url(given) as url:
        wiring.connect(given, url).db.close()  # a URL that cannot be read is said here, once, and not by every process
        os.environ["SKYCTL_DATABASE_URL"] = url
        if config := options(ctx).config:
            os.environ["SKYCTL_CONFIG"] = str(config)
        scheme, shown = "https" if tls_cert else "http", f"[{host}]" if ":" in host else host
        info(ctx, f"listening on {scheme}://{shown}:{listener.getsockname()[1]}")
        server.serve(listener, processes=processes, certificate=tls_cert, key=tls_key, proxies=proxy or ())


def monitor(
    ctx: typer.Context,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks at all workers.")] = 30,
    once: Annotated[bool, typer.Option("--once", help="Look once and exit, as from cron.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Serve Prometheus metrics on this port.")
    ] = None,
) -> None:
    """Find workers that went silent, ran out of room, or came back, and tell people; SIGTERM ends it.

    Any number of monitors may run: one leads, the others stand by and take over within 20 seconds.
    """
    from skyctl import wiring
    from skyctl.host.logs import to_stderr
    from skyctl.host.signals import Stop
    from skyctl.monitor import metrics
    from skyctl.monitor.loop import Monitor

    to_stderr()
    if metrics_port:
        metrics.publish(metrics_port)
    given = settings(ctx)
    # one for the looks, two for what moves and its alerts, and one a channel
    with wiring.open_context(given, connections=3 + len(given.alert_channels)) as context:
        watcher = Monitor(context, timedelta(seconds=interval), metrics.Meters())
        if once:
            if not watcher.run_once():
                info(ctx, "another monitor leads: nothing to do")
            return
        stop = Stop()
        stop.on_signals()
        watcher.run(stop)


def doctor(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Look at everything that has to work, and say what to do about what does not.

    Exit code 0 when nothing failed, 1 otherwise; warnings do not count.
    """
    from skyctl import wiring

    checks = admin.doctor.examine(wiring.case(settings(ctx)))
    healthy = admin.doctor.is_healthy(checks)

    document = documents.http.checkup_document(checks, healthy=healthy)
    emit(ctx, output, document, lambda: views.workers.check_table(checks), [check.name for check in checks])
    if not healthy:
        raise typer.Exit(1)


@db.command("init")
def init(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """Make or upgrade the schema; what is there already stays. May be run any number of times."""

    with open_context(ctx) as context:
        state = admin.schema.initialize(context)
    _show_schema(ctx, output, state)


@db.command("check")
def check(ctx: typer.Context, output: OutputOption = Output.TABLE) -> None:
    """See whether the schema is complete: exit code 0 when it is, 1 when `skyctl db init` is needed."""

    with open_context(ctx) as context:
        state = admin.schema.check(context)
    _show_schema(ctx, output, state)
    if not state.complete:
        info(ctx, "hint: run `skyctl db init`")
        raise typer.Exit(1)


def _show_schema(ctx: typer.Context, output: Output, state: "SchemaState") -> None:

    document = {
        "version": state.version,
        "expectedVersion": state.expected,
        "pendingUpgrade": state.pending_upgrade,
        "missing": list(state.missing),
        "complete": state.complete,
    }
    emit(ctx, output, document, lambda: views.workers.schema_table(state.version, state.expected, state.missing), [])
