"""Running the API: uvicorn with one process or several on one port, TLS, and an end that answers what was accepted."""

import asyncio
import gc
import ipaddress
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from skyctl import settings, wiring
from skyctl.api import liveness, processes, tls
from skyctl.api.gates import CONNECTIONS
from skyctl.api.http_protocol import HeartbeatConnection
from skyctl.domain.addresses import is_loopback_host
from skyctl.domain.errors import Refused, ValidationError
from skyctl.host import logs, metrics_port, sd_notify, signals, vital
from skyctl.host.certificates import Certificates
from skyctl.operations.admin import certificates
from skyctl.operations.shared.context import Context
from skyctl.operations.shared.swarm_join import without_engine

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 20
HANDSHAKE_SECONDS = 5
COLLECT_AFTER = 10_000, 10, 50
EVENT_LOOP_BOUND_SECONDS = 30.0
FACTORY = "skyctl.api.server:application"


def application() -> ASGIApp:
    """The application of the settings in the environment: what each process of a server makes for itself."""
    from skyctl.api.app import Application  # here, since the metrics read the environment of this process when loaded

    logs.to_stderr()
    processes.end_with_parent()
    configured = settings.load()
    if configured.database_url is None:
        raise ValidationError("a server's process needs SKYCTL_DATABASE_URL", "start it with `skyctl serve`")
    context = wiring.connect(configured, configured.database_url, connections=CONNECTIONS)
    context = replace(context, engine=without_engine)
    application = Application(context)
    liveness.begin(context, application.heartbeats.probe)
    _live_by_event_loop()
    sd_notify.notify("READY=1")  # of several processes the first: who connects now is answered by it
    vital.watch()
    gc.freeze()  # what is loaded stays; the collector need not look at it again and again
    gc.set_threshold(*COLLECT_AFTER)
    return application


def _live_by_event_loop() -> None:
    """Live by the event loop that runs here."""
    loop, requests = asyncio.get_running_loop(), vital.Vital("requests", EVENT_LOOP_BOUND_SECONDS)
    requests.begin()

    def go_on() -> None:
        requests.goes_on()
        loop.call_later(vital.TICK_SECONDS / 2, go_on)

    go_on()


class _Loop(uvloop.Loop):
    """With a limit for handshakes: until its end one takes an open file, and is no connection that is counted. The
    socket of this machine speaks plain HTTP also where the others have TLS."""

    def create_server(self, *arguments: Any, **named: Any) -> Any:
        if named["sock"].family == socket.AF_UNIX:
            listener = {"sock": named["sock"], "backlog": named["backlog"], "cleanup_socket": False}
            return self.create_unix_server(*arguments, **listener)
        limit = {"ssl_handshake_timeout": HANDSHAKE_SECONDS} if named.get("ssl") else {}
        make: Any = super().create_server
        return make(*arguments, **named, **limit)


class _Config(uvicorn.Config):
    """With a certificate that may be renewed; behind proxies, what learns the clients' addresses from them stands
    around the application, with what receives its heartbeats."""

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        return _Loop

    def load(self) -> None:
        super().load()
        application = self.loaded_app.app if self.proxy_headers else self.loaded_app
        if self.proxy_headers:
            self.loaded_app.heartbeats = application.heartbeats
        if self.ssl and self.ssl_certfile and self.ssl_keyfile:
            certificate, key = Path(self.ssl_certfile), Path(self.ssl_keyfile)
            tls.follow(self.ssl, certificate, key, partial(_renew, application.context, certificate))


def _renew(context: Context, certificate: Path) -> certificates.Renewal:
    """Renew the certificate if it is ours and about to end."""
    ours = Certificates(settings.load().data_dir)
    if certificate != ours.server:
        return certificates.Renewal.NOT_DUE
    return certificates.renew_if_due(context, ours)


class _Server(uvicorn.Server):
    """Tells the service manager that it ends, before it answers what it has accepted."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        vital.stand_down()
        sd_notify.notify("STOPPING=1")
        await super().shutdown(sockets)


def serve(
    listeners: list[socket.socket],
    *,
    number: int,
    certificate: Path | None,
    key: Path | None,
    proxies: Sequence[str] = (),
    metrics_at: tuple[str, int] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; the settings are those in the environment. What was accepted is answered
    first.

    What one of these proxies says of where a request came from is believed. The metrics are told at `metrics_at` as
    well, to anybody.
    """
    config = _Config(
        FACTORY,
        factory=True,
        workers=number,
        http=HeartbeatConnection,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    _allow_many_connections()
    if number > 1:
        processes.serve(config, listeners, partial(_publish, metrics_at))
    else:
        _publish(metrics_at)
        _serve_from_one(config, listeners)


def _allow_many_connections() -> None:
    """As many open files as the system allows: the usual limit of 1024 is fewer than the workers of a large cluster."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve_from_one(config: _Config, listeners: list[socket.socket]) -> None:
    server = _Server(config)

    def end(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # Its own handlers come once its loop runs, and raise the signal again at the end: neither may break off what is at
    # work then.
    signals.on_end(end)
    server.run(sockets=listeners)


def _publish(metrics_at: tuple[str, int] | None) -> None:
    if metrics_at:
        from skyctl.api import metrics  # here, since it reads the environment of this process when loaded

        metrics_port.publish(*metrics_at, metrics.render, metrics.MEDIA_TYPE)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises Refused where the port is taken, ValidationError where the address is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not host.strip():
        raise ValidationError("--host is empty", "give an address of this machine; 0.0.0.0 is all of them")
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if isinstance(error, socket.gaierror) or error.errno not in (13, 98):
            raise ValidationError(
                f"--host: cannot listen on {host!r}: {error.strerror}", "give an address of this machine"
            ) from error
        raise Refused(f"--port: cannot listen on {host}:{port}: {error.strerror}", "choose another --port") from error
    listener.set_inheritable(True)
    return listener


def check_proxies(proxies: Sequence[str]) -> None:
    """Raise ValidationError unless each is an address, or a network of them."""
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError as error:
            raise ValidationError(
                f"--proxy: {proxy!r} is not an IP address or network", "such as 127.0.0.1 or 10.0.0.0/24"
            ) from error


def own_certificate(configured: settings.Settings, host: str) -> tuple[Path, Path] | tuple[None, None]:
    """The certificate of `skyctl tls init` and its key; none where there is none and only this machine is served.

    Raises Refused where others would be served without TLS, SkyctlError where the two do not belong together.
    """
    ours = Certificates(configured.data_dir)
    if ours.are_there:
        return ours.pair()
    if not is_loopback_host(host):
        raise Refused(
            f"--host {host}: without TLS, tokens would cross the network in the clear",
            "make a certificate: skyctl tls init; or, behind a proxy that ends TLS: --insecure-http",
        )
    return None, None


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """Raise ValidationError unless both files are there and belong together, or neither is given."""
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        raise ValidationError("--tls-cert and --tls-key go together", "give both, or neither")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ValidationError(
            f"--tls-cert {certificate} with --tls-key {key}: {error.strerror or error}",
            "give a PEM certificate and its key",
        ) from error
