"""skyctl monitor: what watches the workers and moves their containers."""

from datetime import timedelta
from typing import Annotated

import typer

from skyctl.cli.arguments import LOOPBACK, MetricsHost, MetricsPort
from skyctl.cli.context import info, open_context, settings
from skyctl.host import logs
from skyctl.host.signals import Stop


def monitor(
    ctx: typer.Context,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks at all workers.")] = 30,
    once: Annotated[bool, typer.Option("--once", help="Look once and exit, as from cron.")] = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = LOOPBACK,
) -> None:
    """Find workers that went silent, ran out of room, or came back, and tell people; SIGTERM ends it.

    Any number of monitors may run: one leads, the others stand by and take over within 20 seconds.
    """
    from skyctl.api.administration import table  # here, as the next two: each loads the database's driver
    from skyctl.monitor import metrics  # here, since no other command but `up` counts for Prometheus
    from skyctl.monitor.answerer import AT_ONCE  # here, likewise
    from skyctl.monitor.loop import Monitor  # here, likewise

    logs.to_stderr()
    if metrics_port:
        metrics.publish(metrics_host, metrics_port)
    # one for the passes, two for what moves and its alerts, one a channel, and one for each thread that answers
    connections = 3 + len(settings(ctx).alert_channels) + AT_ONCE
    # one pass waits for whom it needs, where the loop goes on with its next one
    with open_context(ctx, connections=connections, limits_lock_waits=not once) as context:
        watcher = Monitor(context, timedelta(seconds=interval), metrics.Meters(), table.perform)
        if once:
            if not watcher.run_once():
                info(ctx, "another monitor leads: nothing to do")
            return
        stop = Stop()
        stop.on_signals()
        context.db.check_fitness()  # it would be waited for, as for one that is away
        watcher.run(stop)
