"""The table of the settings: one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skyctl.settings import values


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: its key in the file, its names in the environment (the first wins), how it is read, what it
    means."""

    key: str
    variables: tuple[str, ...]
    read: Callable[[object], Any]
    default: str
    meaning: str
    secret: bool = False


PANELS_VARIABLE = "JWT_SECRET"
NOT_OURS = (PANELS_VARIABLE, "SKYCTL_JWT_SECRET_PREVIOUS", "jwt_secret_previous")
DEFAULT_PORT = 8642
DEFAULT_API_URL = f"http://127.0.0.1:{DEFAULT_PORT}"

TABLE = (
    Setting(
        "database_url",
        ("SKYCTL_DATABASE_URL", "DATABASE_URL"),
        values.text,
        "",
        "PostgreSQL to use; without it, the embedded one in the data folder",
        secret=True,
    ),
    Setting(
        "jwt_secret",
        ("SKYCTL_JWT_SECRET", PANELS_VARIABLE),
        values.text,
        "",
        "signs and checks tokens; without it, one is made and kept in the data folder, mode 0600",
        secret=True,
    ),
    Setting(
        "jwt_secret_previous",
        ("SKYCTL_JWT_SECRET_PREVIOUS",),
        values.text,
        "",
        "what jwt_secret was before: tokens that it signed are still accepted",
        secret=True,
    ),
    Setting(
        "metrics_token",
        ("SKYCTL_METRICS_TOKEN",),
        values.secret,
        "",
        "lets Prometheus read `/metrics` of `skyctl serve`, and nothing else; administrators may as well",
        secret=True,
    ),
    Setting(
        "api_url",
        ("SKYCTL_API_URL",),
        values.http_url,
        f"where `skyctl up` listens, else {DEFAULT_API_URL}",
        "where hosts reach the API; install scripts carry it",
    ),
    Setting(
        "token_rotation_days",
        ("SKYCTL_TOKEN_ROTATION_DAYS",),
        values.days,
        "30",
        "days after which a worker's token is replaced by itself; 0: never",
    ),
    Setting(
        "data_dir",
        ("SKYCTL_DATA_DIR",),
        values.folder,
        "/var/lib/skyctl (root), ~/.local/share/skyctl",
        "the folder of the embedded database and of the kept secret",
    ),
    Setting(
        "heartbeat_interval",
        ("WORKER_HEARTBEAT_INTERVAL",),
        values.seconds,
        "30",
        "seconds between two heartbeats of a worker",
    ),
    Setting(
        "heartbeat_timeout",
        ("WORKER_HEARTBEAT_TIMEOUT",),
        values.seconds,
        "120",
        "seconds of silence after which a worker is offline",
    ),
    Setting(
        "engine_grace", ("WORKER_ENGINE_GRACE",), values.seconds, "60", "seconds that a worker's engine may be away"
    ),
    Setting(
        "cpu_limit", ("WORKER_CPU_LIMIT",), values.percent, "90", "percent of CPU above which a worker is unhealthy"
    ),
    Setting(
        "cpu_heartbeats",
        ("WORKER_CPU_HEARTBEATS",),
        values.heartbeats,
        "2",
        "heartbeats in a row, 1 to 10, above the limit of CPU before a worker is unhealthy",
    ),
    Setting(
        "memory_limit",
        ("WORKER_MEMORY_LIMIT",),
        values.percent,
        "95",
        "percent of memory above which a worker is unhealthy",
    ),
    Setting(
        "disk_limit", ("WORKER_DISK_LIMIT",), values.percent, "90", "percent of disk above which a worker is unhealthy"
    ),
    Setting(
        "migrations_at_once",
        ("SKYCTL_MIGRATIONS_AT_ONCE",),
        values.count,
        "4",
        "containers that are moved at the same time",
    ),
    Setting(
        "migrations_into_one",
        ("SKYCTL_MIGRATIONS_INTO_ONE",),
        values.count,
        "2",
        "of these, containers that are moved to the same worker",
    ),
    Setting(
        "service_down_grace",
        ("SKYCTL_SERVICE_DOWN_GRACE",),
        values.seconds,
        "30",
        "seconds without a container that runs after which a service is down",
    ),
    Setting(
        "deployment_timeout",
        ("SKYCTL_DEPLOYMENT_TIMEOUT",),
        values.seconds,
        "600",
        "seconds after which a deployment that does not run has failed, and the one before runs again",
    ),
    Setting(
        "migration_timeout",
        ("SKYCTL_MIGRATION_TIMEOUT",),
        values.seconds,
        "300",
        "seconds after which a container that does not run on its new worker is moved back",
    ),
    Setting(
        "migration_attempts",
        ("SKYCTL_MIGRATION_ATTEMPTS",),
        values.count,
        "3",
        "attempts after which a migration is given up, until somebody retries it",
    ),
    Setting(
        "alert_channels",
        ("SKYCTL_ALERT_CHANNELS",),
        values.urls,
        "",
        "where alerts go besides the database: URLs as Apprise has them (slack://, mailtos://, jsons://, ...)",
        secret=True,
    ),
    Setting(
        "swarm_advertise_addr",
        ("DOCKER_SWARM_ADVERTISE_ADDR",),
        values.swarm_address,
        "",
        "address by which workers join the swarm; without it, the one that the swarm reports",
    ),
    Setting(
        "docker_host",
        ("DOCKER_HOST",),
        values.text,
        "",
        "the Docker engine of a swarm manager; without it, the local socket",
    ),
    Setting(
        "keep_events_days",
        ("SKYCTL_KEEP_EVENTS_DAYS",),
        values.days,
        "90",
        "days for which the log of events and used links are kept; 0: for ever",
    ),
    Setting(
        "keep_history_days",
        ("SKYCTL_KEEP_HISTORY_DAYS",),
        values.days,
        "180",
        "days for which alerts, migrations and deployments are kept once they are over; 0: for ever",
    ),
    Setting(
        "keep_activity_days",
        ("SKYCTL_KEEP_ACTIVITY_DAYS",),
        values.days,
        "365",
        "days for which what skyctl wrote into the activity log is kept; 0: for ever",
    ),
    Setting(
        "keep_deployments",
        ("SKYCTL_KEEP_DEPLOYMENTS",),
        values.count,
        "10",
        "deployments of each service that are kept, however old",
    ),
    Setting(
        "encrypt_networks",
        ("SKYCTL_ENCRYPT_NETWORKS",),
        values.yes_or_no,
        "true",
        "whether the networks of organizations are encrypted between workers; their kernels need IPsec for it",
    ),
)
