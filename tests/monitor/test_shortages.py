"""A monitor that has no more files: it leads again, and delivers what it could not."""

from collections.abc import Callable

import psycopg

from tests.conftest import Process
from tests.support.helpers import add_worker, eventually
from tests.support.shortages import short_of_files
from tests.support.webhook import webhook

SILENT = "UPDATE container_workers SET last_heartbeat_at = now() - interval '1 hour'"


def test_it_goes_on_after_a_shortage_of_files(start: Callable[..., Process], connection: psycopg.Connection) -> None:
    with webhook() as hook:
        hook.fails.append(True)
        add_worker(connection, name="w", status="active")
        connection.execute(SILENT)
        monitor = start("monitor", "--interval", "0.5", SKYCTL_ALERT_CHANNELS=hook.url)
        monitor.until("action=alert_not_delivered")
        with short_of_files(monitor.popen.pid):
            monitor.until("action=delivery_waits")
            monitor.until("action=database_lost")
            hook.fails.clear()
        monitor.until("action=leads")
        eventually(lambda: [title for title, _ in hook.arrived] == ["Worker w is offline"])
        assert monitor.stop() == 0
