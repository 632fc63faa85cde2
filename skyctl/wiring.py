"""From the settings to the operations' Context: the only file that names the swarm, the database and the embedded
PostgreSQL together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

from skyctl.domain.cluster import AlertPolicy, HealthPolicy
from skyctl.domain.errors import DatabaseUnavailable
from skyctl.domain.retention import RetentionPolicy
from skyctl.domain.text import quoted
from skyctl.domain.workloads import MigrationSettings
from skyctl.host import data_dir, keyring, system_users
from skyctl.host.certificates import FOLDER as TLS
from skyctl.host.certificates import Certificates
from skyctl.host.keyring import Keyring
from skyctl.host.postgres import EmbeddedPostgres
from skyctl.host.release_key import ReleaseKey
from skyctl.notifiers import apprise
from skyctl.operations.shared import key_salt
from skyctl.operations.shared.context import Context, DoctorInputs, Engine, Notifier
from skyctl.settings import Settings, files
from skyctl.store.db import Database
from skyctl.units import data_folders, settings_files

RELEASE_KEY = "release.key"
HOW_TO_HAVE_ONE = (
    "make one: `skyctl up`, or `skyctl db init`; or name the one there is: "
    "SKYCTL_DATABASE_URL, or SKYCTL_DATA_DIR, the folder of an embedded one"
)


@contextmanager
def database_url(settings: Settings, *, make: bool = False) -> Iterator[str]:
    """The database's URL; where none is set, the embedded one, which is up for the length of the block.

    Only with `make` it is made where it is missing: else that is DatabaseUnavailable, and nothing is written.
    """
    if settings.database_url:
        yield settings.database_url
        return
    server = EmbeddedPostgres(settings.data_dir)
    if not (make or server.is_made()):
        raise DatabaseUnavailable(
            f"no database here: {settings.data_dir} holds none that this user may use",
            "; ".join([HOW_TO_HAVE_ONE, *_of_others(settings.data_dir)]),
        )
    with server.running() as url:
        yield url


def _of_others(ours: Path) -> Iterator[str]:
    """Say of each folder that may hold a database, and that this user may not enter, whose it is and who may."""
    for folder in dict.fromkeys((ours, data_folders.SERVE)):
        if closed := data_dir.closed_to_us(EmbeddedPostgres(folder).home):
            command = "" if folder == data_folders.SERVE else f"SKYCTL_DATA_DIR={quoted(folder)} "
            yield f"{closed} belongs to {system_users.owner_of(closed)}: `sudo {command}skyctl ...`"


def connect(settings: Settings, url: str, *, connections: int = 2, limits_lock_waits: bool = False) -> Context:
    """Return the context of a database, which is connected to when first used."""

    def notifier() -> Notifier:
        return apprise.Channels(settings.alert_channels)

    _sweep(settings.data_dir)
    certificates = Certificates(settings.data_dir)
    db = Database(url, connections=connections, limits_lock_waits=limits_lock_waits)
    return Context(
        db=db,
        engine=cache(lambda: _engine(settings)),  # one, since it keeps its connections
        notifier=notifier,
        channels=apprise.names(settings.alert_channels),
        keys=_keys(settings, db),
        health=HealthPolicy(
            heartbeat_timeout=settings.heartbeat_timeout,
            engine_grace=settings.engine_grace,
            heartbeat_interval=settings.heartbeat_interval,
            cpu_percent=settings.cpu_limit,
            cpu_heartbeats=settings.cpu_heartbeats,
            memory_percent=settings.memory_limit,
            disk_percent=settings.disk_limit,
        ),
        alerting=AlertPolicy(),
        migrations=MigrationSettings(
            at_once=settings.migrations_at_once,
            into_one=settings.migrations_into_one,
            timeout=settings.migration_timeout,
            down_grace=settings.service_down_grace,
            deployment_timeout=settings.deployment_timeout,
            attempts=settings.migration_attempts,
        ),
        retention=_retention(settings),
        token_max_age=timedelta(days=settings.token_rotation_days),
        metrics_token=settings.metrics_token,
        api_url=settings.api_url,
        authority=certificates.authority_for,
        certificates=certificates,
        doctor_inputs=lambda: doctor_inputs(settings),
    )


def _sweep(ours: Path) -> None:
    """Remove what killed processes left half written wherever we keep secrets."""
    for folder in filter(None, (ours, data_dir.apart_from(ours))):
        data_dir.sweep(folder)
        data_dir.sweep(folder / TLS)
    data_dir.sweep(settings_files.SERVE.parent)


def doctor_inputs(settings: Settings) -> DoctorInputs:
    """Return what the doctor examines. Nothing is opened yet."""

    @contextmanager
    def database() -> Iterator[Database]:
        with database_url(settings) as url:
            db = Database(url)
            try:
                yield db
            finally:
                db.close()

    return DoctorInputs(
        data_dir=settings.data_dir,
        keeps_database=settings.database_url is None,
        kept_secret=None if settings.jwt_secret else keyring.path(settings.data_dir),
        weak_secrets=settings.weak_secrets,
        database=database,
        engine=lambda: _engine(settings),
        docker_host=settings.docker_host,
        docker_verified=bool(os.environ.get("DOCKER_TLS_VERIFY")),
        settings_concerns=lambda: files.concerns(
            [*_read_from(settings), *sorted(settings_files.SERVE.parent.glob("*.env"))]
        ),
        api_url=settings.api_url,
        certificates=Certificates(settings.data_dir),
        retention=_retention(settings),
    )


def _retention(settings: Settings) -> RetentionPolicy:
    return RetentionPolicy(
        events=timedelta(days=settings.keep_events_days),
        history=timedelta(days=settings.keep_history_days),
        activity=timedelta(days=settings.keep_activity_days),
        deployments=settings.keep_deployments,
    )


def release_key_path(data_dir: Path) -> Path:
    """Return the file of the key of releases: root's beside the settings where the data folder is that of the services'
    user, who could replace a file in it; else in the data folder."""
    is_others = os.geteuid() == 0 and data_dir.is_dir() and data_dir.stat().st_uid != 0
    return (
        settings_files.SERVE.with_name(RELEASE_KEY)
        if is_others or data_dir == data_folders.SERVE
        else data_dir / RELEASE_KEY
    )


def _read_from(settings: Settings) -> list[Path]:
    return [settings.config] if settings.config else []


def _keys(settings: Settings, db: Database) -> Keyring:
    secrets = [secret for secret in (settings.jwt_secret, settings.jwt_secret_previous) if secret]
    keys = Keyring(settings.data_dir, key_salt.reader(db), secrets)
    keys.check()  # where it cannot be had, no operation shall begin
    return keys


def _engine(settings: Settings) -> Engine:
    from skyctl.swarm import SwarmEngine  # here, since its SDK is slow to load and few operations need it

    return SwarmEngine(settings.docker_host, settings.swarm_advertise_addr, encrypts=settings.encrypt_networks)


@contextmanager
def open_context(
    settings: Settings, *, make: bool = False, connections: int = 2, limits_lock_waits: bool = False
) -> Iterator[Context]:
    """Give the context of the settings, for commands: it has the key of releases. Its connections are closed at the end
    of the block. `make` as for `database_url`."""
    with database_url(settings, make=make) as url:
        context = connect(settings, url, connections=connections, limits_lock_waits=limits_lock_waits)
        context = replace(context, release_key=ReleaseKey(release_key_path(settings.data_dir)))
        try:
            yield context
        finally:
            context.db.close()
