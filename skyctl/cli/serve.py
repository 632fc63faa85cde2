"""skyctl serve: the HTTP API."""

import logging
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from skyctl.cli.arguments import LOOPBACK, MetricsHost, MetricsPort
from skyctl.cli.context import info, options, settings
from skyctl.host import admin_socket, logs

log = logging.getLogger(__name__)


def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = LOOPBACK,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 8642,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate, with its chain.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of the certificate's key.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that share the port.")] = 1,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a proxy in front, whose X-Forwarded-For is believed; repeatable."),
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Plain HTTP, as for a proxy in front that ends TLS.")
    ] = False,
    inherited: Annotated[int | None, typer.Option("--listener", hidden=True)] = None,
) -> None:
    """Run the HTTP API that hosts report to. SIGTERM ends it once what was accepted is answered.

    It speaks TLS with the certificate of `skyctl tls init`, or with another one that is given; plain HTTP only on this
    machine. On this machine it also has a unix socket, by which root, its own user and the group skyctl are
    administrators without a token.
    """
    from skyctl import wiring  # here, since `--help` does without the database's driver
    from skyctl.api import server  # here, since no other command needs an HTTP server

    logs.to_stderr()
    chosen = settings(ctx)
    for variable, why in chosen.weak_secrets.items():
        log.warning("action=weak_secret variable=%s reason=who guesses it is administrator: %s", variable, why)
    if not (tls_cert or tls_key or insecure_http or inherited):
        tls_cert, tls_key = server.own_certificate(chosen, host)
    server.check_tls(tls_cert, tls_key)
    server.check_proxies(proxy or ())
    listener = server.listen(host, port) if inherited is None else socket.socket(fileno=inherited)
    with wiring.database_url(chosen) as url, admin_socket.listening(chosen.data_dir) as local:
        with closing(wiring.connect(chosen, url).db) as database:
            database.check_fitness()  # what is wrong with its URL is said here, once, and not by every process
        os.environ["SKYCTL_DATABASE_URL"] = url
        if config := options(ctx).config:
            os.environ["SKYCTL_CONFIG"] = str(config)
        scheme, shown = "https" if tls_cert else "http", f"[{host}]" if ":" in host else host
        info(ctx, f"listening on {scheme}://{shown}:{listener.getsockname()[1]}")
        if local:
            info(ctx, f"listening on {local.getsockname()}, for administrators of this machine")
        server.serve(
            [listener, local] if local else [listener],
            number=processes,
            certificate=tls_cert,
            key=tls_key,
            proxies=proxy or (),
            metrics_at=(metrics_host, metrics_port) if metrics_port else None,
        )
