"""The tables as statements are built from: names and types only. `schema.sql` defines them; a test compares the two.

Where the panel made a table, it has further columns; these are the ones that skyctl needs of it.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, INET, JSONB, TIMESTAMP, UUID
from sqlalchemy.types import TypeEngine

SCHEMA_VERSION = 14

metadata = MetaData()

_ID: TypeEngine[Any] = UUID()
_TIME: TypeEngine[Any] = TIMESTAMP(timezone=True)
_FIGURE: TypeEngine[Any] = DOUBLE_PRECISION()


def _times(*names: str) -> dict[str, TypeEngine[Any]]:
    return dict.fromkeys(names, _TIME)


def _table(name: str, /, **columns: TypeEngine[Any]) -> Table:
    return Table(name, metadata, *(Column(column, kind) for column, kind in columns.items()))


users = _table("users", id=_ID, email=String(255), name=String(255), role=String(50))

organizations = _table("organizations", id=_ID, name=String(255), slug=String(255), owner_id=_ID, settings=JSONB())

organization_members = _table("organization_members", organization_id=_ID, user_id=_ID, role=String(50))

workers = _table(
    "container_workers",
    **_times("last_heartbeat_at", "created_at", "updated_at", "auth_token_expires_at", "drain_requested_at"),
    **_times(
        "drain_deadline_at", "drain_finished_at", "node_paused_at", "drain_counted_at", "undrained_at", "stopped_at"
    ),
    **_times("status_changed_at", "flapping_since", "auth_token_issued_at", "next_token_issued_at"),
    **_times("invitation_expires_at", "token_revoked_at", "bound_at", "agent_offered_at", "swarm_node_confirmed_at"),
    **_times("swarm_node_refuted_at", "cordoned_at", "alerts_silenced_until"),
    id=_ID,
    name=String(255),
    hostname=String(255),
    ip_address=INET(),
    swarm_node_id=String(255),
    auth_token_hash=String(255),
    status=String(50),
    capacity=JSONB(),
    current_load=JSONB(),
    metadata=JSONB(),
    drain_reason=Text(),
    drain_max_parallel=Integer(),
    **dict.fromkeys(("drain_force", "drain_keep_global", "drain_move_local_data", "drain_by_swarm"), Boolean()),
    drain_containers=Integer(),
    **dict.fromkeys(("cordon_reason", "alerts_silenced_reason"), Text()),
    concluded_status=String(50),
    mass_failure_id=BigInteger(),
    cpu_percent=_FIGURE,
    memory_percent=_FIGURE,
    disk_percent=_FIGURE,
    auth_token_key=Text(),
    next_token_hash=Text(),
    next_token_key=Text(),
    invitation_hash=Text(),
    token_revoked_reason=Text(),
    machine_id=Text(),
    boot_id=Text(),
    instance_id=Text(),
    rivals=JSONB(),
    agent_offered=Text(),
    agent_signature=Text(),
    swarm_node_claim=Text(),
    registered_from=INET(),
    swarm_node_confirmed=Text(),
    swarm_node_allowed=Text(),
    swarm_node_trouble=Text(),
    **_times("engine_away_since", "engine_away_seen_at", "node_down_since", "node_down_seen_at"),
    **_times("engine_failed_at", "failure_seen_at", "node_lost_at"),
    recent_cpu=ARRAY(DOUBLE_PRECISION()),
    image_volumes=JSONB(),
)

install_links = _table(
    "install_links",
    secret_hash=Text(),
    worker_id=_ID,
    api_url=Text(),
    insecure=Boolean(),
    anew=Boolean(),
    made_by=Text(),
    **_times("made_at", "expires_at", "used_at"),
)

api_tokens = _table(
    "api_tokens",
    id=_ID,
    token_hash=String(64),
    name=String(64),
    role=String(20),
    made_by=String(255),
    last_used_from=INET(),
    revoked_by=String(255),
    **_times("made_at", "expires_at", "last_used_at", "revoked_at"),
)

services = _table(
    "container_services",
    id=_ID,
    organization_id=_ID,
    name=String(255),
    slug=String(255),
    environment_vars=JSONB(),
    resource_limits=JSONB(),
    status=String(50),
    current_deployment_id=_ID,
    public_url=String(500),
    created_at=_TIME,
    updated_at=_TIME,
    engine_settings=JSONB(),
    down_since=_TIME,
    down_seen_at=_TIME,
    down_reason=Text(),
    ending_task=Text(),
    ending_seen_at=_TIME,
    ending_reason=Text(),
)

deployments = _table(
    "container_deployments",
    id=_ID,
    service_id=_ID,
    worker_id=_ID,
    swarm_service_id=String(255),
    container_id=String(255),
    image_tag=String(255),
    status=String(50),
    deployment_logs=Text(),
    public_url=String(500),
    internal_port=Integer(),
    external_port=Integer(),
    deployed_at=_TIME,
    stopped_at=_TIME,
    created_at=_TIME,
    updated_at=_TIME,
    untold_since=_TIME,
    created_as=_ID,
    wanted=JSONB(),
    by_skyctl=Boolean(),
    applied_at=_TIME,
    image_digest=Text(),
    no_place_on=ARRAY(UUID()),
)

notifications = _table(
    "notifications",
    id=_ID,
    user_id=_ID,
    type=String(100),
    message=Text(),
    metadata=JSONB(),
    read=Boolean(),
    created_at=_TIME,
)

activity_logs = _table(
    "activity_logs",
    id=_ID,
    user_id=_ID,
    organization_id=_ID,
    event_type=String(100),
    entity_type=String(100),
    entity_id=String(255),
    message=Text(),
    status=String(20),
    ip_address=String(64),
    user_agent=Text(),
    metadata=JSONB(),
    created_at=_TIME,
    is_read=Boolean(),
    read_at=_TIME,
)

events = _table(
    "worker_events",
    seq=BigInteger(),
    at=_TIME,
    kind=String(50),
    worker_id=_ID,
    worker_name=String(255),
    actor=Text(),
    from_status=String(50),
    to_status=String(50),
    reason=Text(),
    details=JSONB(),
    term=BigInteger(),
)

alerts = _table(
    "worker_alerts",
    id=BigInteger(),
    at=_TIME,
    kind=String(50),
    worker_id=_ID,
    title=Text(),
    message=Text(),
    metadata=JSONB(),
    term=BigInteger(),
)

incidents = _table(
    "worker_incidents", worker_id=_ID, alert_id=BigInteger(), closed_at=_TIME, exhaustion_alerted_at=_TIME
)

deliveries = _table(
    "alert_deliveries",
    alert_id=BigInteger(),
    channel=String(100),
    attempts=Integer(),
    next_attempt_at=_TIME,
    delivered_at=_TIME,
    given_up_at=_TIME,
    error=Text(),
)

mass_failures = _table(
    "mass_failures",
    id=BigInteger(),
    region=Text(),
    silent=Integer(),
    schedulable=Integer(),
    detected_at=_TIME,
    lifted_at=_TIME,
    lifted_by=Text(),
)

migrations = _table(
    "container_migrations",
    id=_ID,
    service_id=_ID,
    source_deployment_id=_ID,
    target_deployment_id=_ID,
    source_worker_id=_ID,
    target_worker_id=_ID,
    state=String(50),
    reason=Text(),
    attempts=Integer(),
    next_attempt_at=_TIME,
    deadline_at=_TIME,
    created_at=_TIME,
    updated_at=_TIME,
    finished_at=_TIME,
    cause=String(50),
    mass_failure_id=BigInteger(),
    avoid=ARRAY(UUID()),
    cancelled_by=Text(),
    started_at=_TIME,
    source_stopped_at=_TIME,
    summed_up_at=_TIME,
    swarm_service_id=Text(),
    swarm_service_name=Text(),
)

owner_specs = _table(
    "owner_specs",
    swarm_service_id=Text(),
    spec=JSONB(),
    former=JSONB(),
    excluded=ARRAY(Text()),
    changed_at=_TIME,
)

pauses = _table(
    "migration_pauses",
    id=BigInteger(),
    paused_at=_TIME,
    paused_by=Text(),
    until_at=_TIME,
    reason=Text(),
    ended_at=_TIME,
    ended_by=Text(),
)

monitor_leases = _table(
    "monitor_leases",
    name=String(50),
    holder=String(255),
    term=BigInteger(),
    expires_at=_TIME,
    last_pass_at=_TIME,
    alerted_seq=BigInteger(),
    engine_trouble=Text(),
    engine_away_since=_TIME,
    engine_away_seen_at=_TIME,
    engine_away_told=Boolean(),
)

retention_sweeps = _table(
    "retention_sweeps",
    name=String(50),
    after_at=_TIME,
    after_key=Text(),
    swept_at=_TIME,
    removed=BigInteger(),
    removed_seq=BigInteger(),
)

serve_instances = _table(
    "serve_instances", id=_ID, hostname=String(255), pid=Integer(), started_at=_TIME, last_seen_at=_TIME
)

serve_outages = _table("serve_outages", id=BigInteger(), started_at=_TIME, ended_at=_TIME)

swarm_joins = _table("swarm_joins", is_only=Boolean(), address=String(255), token=Text(), updated_at=_TIME)

node_removals = _table(
    "node_removals", node_id=String(255), worker_name=String(255), asked_at=_TIME, is_closed=Boolean()
)

certificate_requests = _table(
    "certificate_requests", id=String(64), request=Text(), asked_at=_TIME, certificate=Text(), refusal=Text()
)

monitor_requests = _table(
    "monitor_requests", id=_ID, route=Text(), request=Text(), asked_at=_TIME, taken_at=_TIME, outcome=Text()
)

installations = _table(
    "skyctl_installation",
    is_only=Boolean(),
    id=_ID,
    worker_key_salt=Text(),
    admin_tokens_from=_TIME,
    release_key=Text(),
)

worker_counts = _table("worker_counts", id=BigInteger(), delta=BigInteger())
schema_versions = _table("skyctl_schema", version=Integer(), applied_at=_TIME)
