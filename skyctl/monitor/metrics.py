"""The metrics of a monitor, for Prometheus."""

from collections.abc import Sequence
from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

from skyctl.domain.cluster import Event
from skyctl.host import metrics_port
from skyctl.operations.monitor.alerts import RaisedAlerts
from skyctl.operations.monitor.health import HealthPass

PASSES = Histogram("skyctl_monitor_pass_seconds", "Time of one pass over all workers, its alerts raised")
EVENTS = Counter("skyctl_monitor_events", "What the monitor concluded, by kind and new status", ["kind", "status"])
PASSED_OVER = Counter(
    "skyctl_monitor_passed_over", "Workers and events that the database refused, and that were passed over"
)
ALERTS = Counter("skyctl_monitor_alerts", "Alerts raised, by kind", ["kind"])
DELIVERIES = Counter(
    "skyctl_monitor_deliveries", "Attempts to send an alert by a channel, by outcome", ["channel", "outcome"]
)
LEADING = Gauge("skyctl_monitor_leading", "1 while this monitor leads")


class Meters:
    """Counts what one monitor does."""

    def passed(self, seconds: float, health_pass: HealthPass, raised: RaisedAlerts) -> None:
        """Count a pass over all workers."""
        PASSES.observe(seconds)
        PASSED_OVER.inc(len(health_pass.poison))
        self.moved(health_pass.events, raised)

    def moved(self, events: Sequence[Event], raised: RaisedAlerts) -> None:
        """Count a step of migrations or services."""
        PASSED_OVER.inc(len(raised.poison))
        for event in events:
            EVENTS.labels(event.kind, event.to_status or "").inc()
        for alert in raised.alerts:
            ALERTS.labels(alert.kind).inc()

    def leads(self, leading: bool) -> None:
        """Note whether the monitor leads."""
        LEADING.set(leading)

    def sent(self, channel: str, arrived: bool) -> None:
        """Count an attempt to send an alert by a channel."""
        DELIVERIES.labels(channel, "delivered" if arrived else "failed").inc()


def publish(host: str, port: int) -> None:
    """Serve /metrics there. Raises Refused where the port is taken, ValidationError where the address is not ours."""
    metrics_port.publish(host, port, partial(generate_latest, REGISTRY), CONTENT_TYPE_LATEST)
