"""How grave the kinds of alerts are."""

from enum import StrEnum

from skyctl.rules import alerts, engine_alerts, service_alerts


class Severity(StrEnum):
    """The gravest first; the values are those of an entry of the activity log."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    SUCCESS = "success"


OF_KIND = {
    alerts.MASS_FAILURE: Severity.ERROR,
    alerts.OFFLINE: Severity.ERROR,
    alerts.MIGRATION_FAILED: Severity.ERROR,
    alerts.SUMMARY: Severity.INFO,
    alerts.TEST: Severity.INFO,
    alerts.RECOVERED: Severity.SUCCESS,
    alerts.MASS_RECOVERY: Severity.SUCCESS,
    alerts.MIGRATED: Severity.SUCCESS,
    service_alerts.DOWN: Severity.ERROR,
    service_alerts.UP: Severity.SUCCESS,
    engine_alerts.LOST: Severity.ERROR,
    engine_alerts.BACK: Severity.SUCCESS,
    service_alerts.KEEPS_ENDING: Severity.ERROR,
    service_alerts.KEEPS_RUNNING: Severity.SUCCESS,
}


def severity(kind: str) -> Severity:
    """Tell how grave a kind of alert is: a warning unless it is said otherwise."""
    return OF_KIND.get(kind, Severity.WARNING)
