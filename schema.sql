-- The whole schema of skyctl, for PostgreSQL 15 to 18.
--
-- `skyctl db init` applies this file in one transaction. Every statement may be repeated: on an empty database it makes
-- everything, on the panel's database it adds what the panel lacks, on an older skyctl database it is the upgrade.
-- JSON documents are written in camelCase; rows that the panel wrote may hold snake_case, and both are read.


-- Accounts. The panel's own tables where it is installed; else the fewest columns that skyctl needs.

CREATE TABLE IF NOT EXISTS users (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email      varchar(255) NOT NULL UNIQUE,
    name       varchar(255),
    role       varchar(50) NOT NULL DEFAULT 'user' CHECK (role IN ('admin', 'user'))
);

CREATE TABLE IF NOT EXISTS organizations (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       varchar(255) NOT NULL,
    slug       varchar(255) NOT NULL UNIQUE,
    owner_id   uuid REFERENCES users (id),
    settings   jsonb DEFAULT '{}'
);

CREATE TABLE IF NOT EXISTS organization_members (
    organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id         uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role            varchar(50) NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'admin', 'member')),
    PRIMARY KEY (organization_id, user_id)
);


-- Workers. A heartbeat writes current_load and last_heartbeat_at, which no index of ours covers: with room left on the
-- page such an update stays on it (heap-only) and touches no index at all.

CREATE TABLE IF NOT EXISTS container_workers (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name              varchar(255) NOT NULL,
    hostname          varchar(255) NOT NULL,
    ip_address        inet NOT NULL,
    swarm_node_id     varchar(255) UNIQUE,
    auth_token_hash   varchar(255) NOT NULL,
    status            varchar(50) DEFAULT 'pending'
                      CHECK (status IN ('pending', 'active', 'unhealthy', 'draining', 'offline')),
    capacity          jsonb NOT NULL DEFAULT '{"cpuCores": 0, "memoryMb": 0, "diskGb": 0}',
    current_load      jsonb NOT NULL
                      DEFAULT '{"cpuPercent": 0, "memoryPercent": 0, "diskPercent": 0, "containerCount": 0}',
    last_heartbeat_at timestamptz,
    metadata          jsonb DEFAULT '{}',
    created_at        timestamptz DEFAULT now(),
    updated_at        timestamptz DEFAULT now()
);

-- Facts that are ours: when the token stops being good, since when an administrator wants the worker empty,
-- when the agent was stopped on purpose.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS auth_token_expires_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_requested_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS stopped_at timestamptz;
ALTER TABLE container_workers SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX IF NOT EXISTS container_workers_name_idx ON container_workers (name, id);


-- Services and where they run.

CREATE TABLE IF NOT EXISTS container_services (
    id                    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id       uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name                  varchar(255) NOT NULL,
    slug                  varchar(255) NOT NULL,
    environment_vars      jsonb NOT NULL DEFAULT '{}',
    resource_limits       jsonb NOT NULL DEFAULT '{"cpuCores": 1, "memoryMb": 512, "diskGb": 10}',
    status                varchar(50) NOT NULL DEFAULT 'pending'
                          CHECK (status IN ('pending', 'building', 'deploying', 'running', 'stopped', 'failed', 'deleted')),
    current_deployment_id uuid,
    public_url            varchar(500),
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, slug)
);

CREATE TABLE IF NOT EXISTS container_deployments (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    service_id       uuid NOT NULL REFERENCES container_services (id) ON DELETE CASCADE,
    worker_id        uuid REFERENCES container_workers (id) ON DELETE SET NULL,
    swarm_service_id varchar(255),
    container_id     varchar(255),
    image_tag        varchar(255) NOT NULL,
    status           varchar(50) NOT NULL DEFAULT 'pending'
                     CHECK (status IN ('pending', 'building', 'deploying', 'running', 'stopped', 'failed', 'rolled_back')),
    deployment_logs  text,
    public_url       varchar(500),
    internal_port    integer,
    external_port    integer,
    deployed_at      timestamptz,
    stopped_at       timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'container_services'::regclass AND confrelid = 'container_deployments'::regclass AND contype = 'f'
    ) THEN
        ALTER TABLE container_services ADD CONSTRAINT container_services_current_deployment_id_fkey
            FOREIGN KEY (current_deployment_id) REFERENCES container_deployments (id) ON DELETE SET NULL;
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS container_deployments_worker_status_idx ON container_deployments (worker_id, status);


-- What people are told. The panel inserts into notifications but does not create the table.

CREATE TABLE IF NOT EXISTS notifications (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id    uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    type       varchar(100) NOT NULL,
    message    text NOT NULL,
    metadata   jsonb NOT NULL DEFAULT '{}',
    read       boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS activity_logs (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         uuid REFERENCES users (id) ON DELETE SET NULL,
    organization_id uuid REFERENCES organizations (id) ON DELETE SET NULL,
    event_type      varchar(100) NOT NULL,
    entity_type     varchar(100) NOT NULL,
    entity_id       varchar(255),
    message         text,
    status          varchar(20) NOT NULL DEFAULT 'info' CHECK (status IN ('success', 'warning', 'error', 'info')),
    ip_address      varchar(64),
    user_agent      text,
    metadata        jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT now()
);


-- The log of everything that happened to a worker, in order. Rows outlive the worker: the last event of a removed
-- worker is what refuses its token.

CREATE TABLE IF NOT EXISTS worker_events (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    kind        varchar(50) NOT NULL,
    worker_id   uuid,
    worker_name varchar(255),
    actor       varchar(255) NOT NULL DEFAULT 'monitor',
    from_status varchar(50),
    to_status   varchar(50),
    reason      text,
    details     jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX IF NOT EXISTS worker_events_worker_seq_idx ON worker_events (worker_id, seq);

-- Removing a worker is an event whoever does it, the panel included: this trigger writes it, with the actor that the
-- operation named in the setting skyctl.actor of its transaction.
CREATE OR REPLACE FUNCTION skyctl_worker_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO worker_events (kind, worker_id, worker_name, actor, from_status, reason)
    VALUES ('removed', OLD.id, OLD.name, coalesce(nullif(current_setting('skyctl.actor', true), ''), 'panel'), OLD.status,
            'removed from the cluster');
    RETURN OLD;
END
$$;

CREATE OR REPLACE TRIGGER skyctl_worker_removed AFTER DELETE ON container_workers
    FOR EACH ROW EXECUTE FUNCTION skyctl_worker_removed();


-- One row a move of a container from one worker to another, and the state it has reached.

CREATE TABLE IF NOT EXISTS container_migrations (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    service_id           uuid NOT NULL REFERENCES container_services (id) ON DELETE CASCADE,
    source_deployment_id uuid REFERENCES container_deployments (id) ON DELETE SET NULL,
    target_deployment_id uuid REFERENCES container_deployments (id) ON DELETE SET NULL,
    source_worker_id     uuid,
    target_worker_id     uuid,
    state                varchar(50) NOT NULL DEFAULT 'queued'
                         CHECK (state IN ('awaiting_approval', 'held', 'queued', 'starting', 'verifying', 'completed',
                                          'failed', 'cancelled')),
    reason               text,
    attempts             integer NOT NULL DEFAULT 0,
    next_attempt_at      timestamptz NOT NULL DEFAULT now(),
    deadline_at          timestamptz,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    finished_at          timestamptz
);


-- Who runs. A monitor leads by holding the lease for its term; each serve touches its row while it can hear workers,
-- and a gap in which none did is an outage of ours.

CREATE TABLE IF NOT EXISTS monitor_leases (
    name         varchar(50) PRIMARY KEY,
    holder       varchar(255) NOT NULL,
    term         bigint NOT NULL DEFAULT 1,
    expires_at   timestamptz NOT NULL,
    last_pass_at timestamptz
);

CREATE TABLE IF NOT EXISTS serve_instances (
    id           uuid PRIMARY KEY,
    hostname     varchar(255) NOT NULL,
    pid          integer NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS serve_outages (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL
);


-- Which of these files the database has seen: the version is raised by hand with every change above.

CREATE TABLE IF NOT EXISTS skyctl_schema (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO skyctl_schema (version) VALUES (1) ON CONFLICT DO NOTHING;
