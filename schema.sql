-- The whole schema of skyctl, for PostgreSQL 15 to 18.
--
-- `skyctl db init` applies this file in one transaction. Every statement may be repeated: on an empty database it makes
-- everything, on the panel's database it adds what the panel lacks, on an older skyctl database it is the upgrade.
-- JSON documents are written in camelCase; rows that the panel wrote may hold snake_case, and both are read.


-- The one clock. Rehearsals and tests move it ahead, for their own transactions alone, by the setting skyctl.ahead.

CREATE OR REPLACE FUNCTION skyctl_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT now() + coalesce(nullif(current_setting('skyctl.ahead', true), ''), '0')::interval
$$;

-- The same clock, which goes on within a transaction.
CREATE OR REPLACE FUNCTION skyctl_clock() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT skyctl_now() - now() + clock_timestamp()
$$;

-- A figure of a JSON document, in camelCase or the panel's snake_case; NULL where it is missing, no number, or beyond
-- reason.
CREATE OR REPLACE FUNCTION skyctl_figure(document jsonb, camel text, snake text) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(coalesce(document -> camel, document -> snake)) = 'number'
                THEN CASE WHEN abs(coalesce(document -> camel, document -> snake)::numeric) BETWEEN 1e-6 AND 1e15
                          THEN coalesce(document -> camel, document -> snake)::double precision
                          WHEN abs(coalesce(document -> camel, document -> snake)::numeric) < 1e-6 THEN 0 END END
$$;

-- What an organization wants when a worker fails, of its settings; what is no policy is as if nothing stood there.
CREATE OR REPLACE FUNCTION skyctl_migration_policy(settings jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN settings ->> 'containerMigrationPolicy' IN ('manual', 'none') THEN settings ->> 'containerMigrationPolicy'
                ELSE 'automatic' END
$$;


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
-- page such an update stays on it (heap-only) and touches no index at all. What it changes stands side by side: the log
-- (WAL) of such an update has the row from the first byte that is another to the last. A table that was made before gets
-- the same columns further below.

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
    metadata          jsonb DEFAULT '{}',
    created_at        timestamptz DEFAULT now(),
    updated_at        timestamptz DEFAULT now(),
    current_load      jsonb NOT NULL
                      DEFAULT '{"cpuPercent": 0, "memoryPercent": 0, "diskPercent": 0, "containerCount": 0}',
    last_heartbeat_at timestamptz,
    cpu_percent       double precision GENERATED ALWAYS AS (skyctl_figure(current_load, 'cpuPercent', 'cpu_percent')) STORED,
    memory_percent    double precision
                      GENERATED ALWAYS AS (skyctl_figure(current_load, 'memoryPercent', 'memory_percent')) STORED,
    disk_percent      double precision
                      GENERATED ALWAYS AS (skyctl_figure(current_load, 'diskPercent', 'disk_percent')) STORED,
    recent_cpu        double precision[]
);

-- Facts that are ours: when the token stops being good, since when and why an administrator wants the worker empty,
-- that he no longer does (until the status follows), when the agent was stopped on purpose.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS auth_token_expires_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_requested_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_reason text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_deadline_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_max_parallel integer;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_force boolean NOT NULL DEFAULT false;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_keep_global boolean NOT NULL DEFAULT false;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_move_local_data boolean NOT NULL DEFAULT false;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_by_swarm boolean NOT NULL DEFAULT false;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS undrained_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS stopped_at timestamptz;
-- Since when, and why, an administrator wants the worker to take nothing new; until when, and why, alerts of its health
-- are held back from the channels.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS cordoned_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS cordon_reason text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS alerts_silenced_until timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS alerts_silenced_reason text;

-- Credentials. The current token's hash is `auth_token_hash` ('' where it was revoked); `next_token_*` is one that
-- waits to be handed over by the answer to a heartbeat, and to be used. `*_key` names the secret that signed it.
-- `invitation_*`: one by which the host of a worker that is there already may join anew. `machine_id`: the machine that
-- the token is bound to; `boot_id` and `instance_id`: its boot and the process of its agent, since `bound_at`;
-- `rivals`: others that want to register as that machine, by where from: since when, and whether both were seen alive.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS auth_token_issued_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS auth_token_key text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS next_token_hash text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS next_token_issued_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS next_token_key text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS invitation_hash text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS invitation_expires_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS token_revoked_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS token_revoked_reason text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS machine_id text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS boot_id text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS instance_id text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS bound_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS rivals jsonb;

-- A newer agent that the answer to a heartbeat offers: the SHA-256 of its artifact.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS agent_offered text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS agent_offered_at timestamptz;
-- The signature of what is offered, by the key of releases that `serve` does not have.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS agent_signature text;

-- Conclusions of the monitor beside the status: since when it stands, since when the worker flaps, the mass failure by
-- which it went silent, when its drain was over, and since when its node takes nothing new because of one.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS status_changed_at timestamptz;
-- The last status that the monitor concluded, and people know; `status` is written by the panel's API as well.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS concluded_status varchar(50);
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS flapping_since timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS mass_failure_id bigint;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_finished_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS node_paused_at timestamptz;
-- How many containers the engine had on its node when they were last counted for a drain, and since when so many.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_containers integer;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS drain_counted_at timestamptz;

-- The load once more as plain numbers: the monitor looks through all of them at every pass, and reading JSON took most
-- of it.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS cpu_percent double precision
    GENERATED ALWAYS AS (skyctl_figure(current_load, 'cpuPercent', 'cpu_percent')) STORED;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS memory_percent double precision
    GENERATED ALWAYS AS (skyctl_figure(current_load, 'memoryPercent', 'memory_percent')) STORED;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS disk_percent double precision
    GENERATED ALWAYS AS (skyctl_figure(current_load, 'diskPercent', 'disk_percent')) STORED;
-- A host's claim of a swarm node, `swarm_node_claim`, and from which address it was made. `swarm_node_id` counts while
-- it is `swarm_node_confirmed`: the last one of which the monitor has found with the engine that it is this worker's.
-- Else it is a claim, too: the panel's, or from before. `swarm_node_allowed` is the node that an administrator says is this worker's,
-- `swarm_node_trouble` why the claim does not count, `swarm_node_refuted_at` when people were told so.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS swarm_node_claim text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS registered_from inet;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS swarm_node_confirmed text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS swarm_node_confirmed_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS swarm_node_allowed text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS swarm_node_trouble text;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS swarm_node_refuted_at timestamptz;

-- The health of a worker's engine: since when its agent says that it does not answer, and when it last said so; since
-- when the swarm says that its node is down, and when it was last seen so; since when the monitor counts it as failed by
-- either.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS engine_away_since timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS engine_away_seen_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS node_down_since timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS node_down_seen_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS engine_failed_at timestamptz;
-- When the engine was last asked what was on the node of a worker that had failed; and since when its node is known to be
-- down, and what the swarm starts elsewhere is written down: null again once the node is up.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS failure_seen_at timestamptz;
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS node_lost_at timestamptz;
-- The CPU of the last heartbeats, the latest first; what the panel's API hears is not in it.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS recent_cpu double precision[];
-- Where containers of the swarm's services have volumes without a name: paths, by the swarm's id of the service, as the
-- worker's agent said last; NULL where it never did.
ALTER TABLE container_workers ADD COLUMN IF NOT EXISTS image_volumes jsonb;

ALTER TABLE container_workers SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX IF NOT EXISTS container_workers_name_idx ON container_workers (name, id);
DROP INDEX IF EXISTS container_workers_offline_idx;
CREATE INDEX IF NOT EXISTS container_workers_failed_idx ON container_workers (id)
    WHERE status = 'offline' OR engine_failed_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS container_workers_node_down_idx ON container_workers (id) WHERE node_down_since IS NOT NULL;
CREATE INDEX IF NOT EXISTS container_workers_drained_idx ON container_workers (id)
    WHERE drain_requested_at IS NOT NULL OR node_paused_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS container_workers_cordoned_idx ON container_workers (id) WHERE cordoned_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS container_workers_silenced_idx ON container_workers (id)
    WHERE alerts_silenced_until IS NOT NULL;
CREATE INDEX IF NOT EXISTS container_workers_draining_idx ON container_workers (id)
    WHERE status = 'draining' AND drain_requested_at IS NULL AND undrained_at IS NULL;
CREATE INDEX IF NOT EXISTS container_workers_claims_idx ON container_workers (id)
    WHERE (swarm_node_id = swarm_node_confirmed) IS NOT TRUE AND coalesce(swarm_node_id, swarm_node_claim) IS NOT NULL;

-- What is read of many workers is found by these, and none holds what heartbeats write: the workers that are not active;
-- those that every pass of the monitor looks at; what is searched by its beginning; the names that completion cannot
-- offer; what `doctor` warns of.
CREATE INDEX IF NOT EXISTS container_workers_status_idx ON container_workers (status, name, id)
    WHERE status IS DISTINCT FROM 'active';
CREATE INDEX IF NOT EXISTS container_workers_watched_idx ON container_workers (id)
    WHERE status IS DISTINCT FROM 'active' OR concluded_status IS DISTINCT FROM 'active'
          OR drain_requested_at IS NOT NULL OR engine_failed_at IS NOT NULL OR node_down_since IS NOT NULL
          OR flapping_since IS NOT NULL;
CREATE INDEX IF NOT EXISTS container_workers_name_search_idx ON container_workers (lower(name) COLLATE "C");
CREATE INDEX IF NOT EXISTS container_workers_hostname_search_idx ON container_workers (lower(hostname) COLLATE "C");
CREATE INDEX IF NOT EXISTS container_workers_address_search_idx ON container_workers (host(ip_address) COLLATE "C");
CREATE INDEX IF NOT EXISTS container_workers_odd_name_idx ON container_workers (id)
    WHERE name !~ '^[A-Za-z0-9._][A-Za-z0-9._-]*$';
CREATE INDEX IF NOT EXISTS container_workers_token_end_idx ON container_workers (auth_token_expires_at);
CREATE INDEX IF NOT EXISTS container_workers_shared_key_idx ON container_workers (id)
    WHERE hostname <> '' AND auth_token_hash <> '' AND NOT starts_with(coalesce(auth_token_key, ''), 'w-');
CREATE INDEX IF NOT EXISTS container_workers_clock_off_idx ON container_workers (id)
    WHERE abs(skyctl_figure(metadata, 'clockOffsetSeconds', 'clock_offset_seconds')) > 30;
CREATE INDEX IF NOT EXISTS container_workers_plain_http_idx ON container_workers (id)
    WHERE metadata -> 'plainHttp' = 'true';
-- Whoever never registered here: the monitor asks every ten seconds whether one of them was heard.
CREATE INDEX IF NOT EXISTS container_workers_unregistered_idx ON container_workers (id)
    WHERE bound_at IS NULL AND machine_id IS NULL AND registered_from IS NULL;

-- How many workers there are: the sum, to which each statement that adds or removes some adds a row; the monitor makes
-- one row of them now and then. Counting a million rows takes too long for a page.
CREATE TABLE IF NOT EXISTS worker_counts (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delta bigint NOT NULL
);

CREATE OR REPLACE FUNCTION skyctl_workers_counted() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO worker_counts (delta) SELECT count(*) FROM changed HAVING count(*) > 0;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO worker_counts (delta) SELECT -count(*) FROM changed HAVING count(*) > 0;
    ELSE
        DELETE FROM worker_counts;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER skyctl_workers_added AFTER INSERT ON container_workers
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION skyctl_workers_counted();
CREATE OR REPLACE TRIGGER skyctl_workers_deleted AFTER DELETE ON container_workers
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION skyctl_workers_counted();
CREATE OR REPLACE TRIGGER skyctl_workers_emptied AFTER TRUNCATE ON container_workers
    FOR EACH STATEMENT EXECUTE FUNCTION skyctl_workers_counted();

-- Those that were there before, or were written past the triggers.
INSERT INTO worker_counts (delta)
SELECT found.number - known.number
FROM (SELECT count(*) AS number FROM container_workers) AS found,
     (SELECT coalesce(sum(delta), 0) AS number FROM worker_counts) AS known
WHERE found.number <> known.number;

-- Links by which a worker's install script is fetched, once: only the SHA-256 of a link's secret is stored, and the
-- script with its token is made when it is fetched. `api_url`: where its host reaches us. `anew`: it may be fetched
-- although a host has joined as this worker already.
CREATE TABLE IF NOT EXISTS install_links (
    secret_hash text PRIMARY KEY,
    worker_id   uuid NOT NULL REFERENCES container_workers (id) ON DELETE CASCADE,
    api_url     text NOT NULL,
    insecure    boolean NOT NULL DEFAULT false,
    anew        boolean NOT NULL DEFAULT false,
    made_by     text NOT NULL,
    made_at     timestamptz NOT NULL DEFAULT skyctl_now(),
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);
CREATE INDEX IF NOT EXISTS install_links_worker_idx ON install_links (worker_id);
CREATE INDEX IF NOT EXISTS install_links_expires_idx ON install_links (expires_at, secret_hash);

-- Tokens of the API that are nobody's login, each with a role: only the SHA-256 is stored. One that was revoked, or has
-- expired, is kept, so that the log's names mean something; its name may be given again.
CREATE TABLE IF NOT EXISTS api_tokens (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    token_hash     varchar(64) NOT NULL UNIQUE,
    name           varchar(64) NOT NULL,
    role           varchar(20) NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    made_by        varchar(255) NOT NULL,
    made_at        timestamptz NOT NULL DEFAULT skyctl_now(),
    expires_at     timestamptz,
    last_used_at   timestamptz,
    last_used_from inet,
    revoked_at     timestamptz,
    revoked_by     varchar(255)
);
CREATE UNIQUE INDEX IF NOT EXISTS api_tokens_name_idx ON api_tokens (name) WHERE revoked_at IS NULL;


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

-- Of deployments that skyctl made: the engine is not told of it yet; by which deployment's order its container was
-- created (a move leaves the labels of containers as they are); and what was wanted of the service, for when a later
-- one is rolled back.
ALTER TABLE container_deployments ADD COLUMN IF NOT EXISTS untold_since timestamptz;
ALTER TABLE container_deployments ADD COLUMN IF NOT EXISTS created_as uuid;
ALTER TABLE container_deployments ADD COLUMN IF NOT EXISTS wanted jsonb;
CREATE INDEX IF NOT EXISTS container_deployments_unsettled_idx ON container_deployments (id)
    WHERE status = 'deploying' OR untold_since IS NOT NULL;

-- How the engine runs a service and where it may be, in camelCase: endpointMode, ports, labels, command, region, pool,
-- spread.
ALTER TABLE container_services ADD COLUMN IF NOT EXISTS engine_settings jsonb NOT NULL DEFAULT '{}';
-- Since when none of its containers runs although one is to, when that was last seen; and why, once that has lasted
-- and people were told.
ALTER TABLE container_services ADD COLUMN IF NOT EXISTS down_since timestamptz;
ALTER TABLE container_services ADD COLUMN IF NOT EXISTS down_seen_at timestamptz;
ALTER TABLE container_services ADD COLUMN IF NOT EXISTS down_reason text;
-- Of a service whose container ends again and again: its newest task, when that was first seen, and why, while people
-- are told that it keeps ending.
ALTER TABLE container_services ADD COLUMN IF NOT EXISTS ending_task text;
ALTER TABLE container_services ADD COLUMN IF NOT EXISTS ending_seen_at timestamptz;
ALTER TABLE container_services ADD COLUMN IF NOT EXISTS ending_reason text;

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

-- Of the panel's deployments none is ever removed; of those that skyctl made, the ones that are long over.
ALTER TABLE container_deployments ADD COLUMN IF NOT EXISTS by_skyctl boolean NOT NULL DEFAULT false;
CREATE INDEX IF NOT EXISTS container_deployments_service_idx ON container_deployments (service_id, created_at, id);
CREATE INDEX IF NOT EXISTS container_deployments_over_idx ON container_deployments (updated_at, id)
    WHERE by_skyctl AND status IN ('stopped', 'failed', 'rolled_back') AND untold_since IS NULL;

-- When the engine was told of a deployment, the digest that its image had in the registry then, and the workers on which
-- the engine found no place for it.
ALTER TABLE container_deployments ADD COLUMN IF NOT EXISTS applied_at timestamptz;
ALTER TABLE container_deployments ADD COLUMN IF NOT EXISTS image_digest text;
ALTER TABLE container_deployments ADD COLUMN IF NOT EXISTS no_place_on uuid[] NOT NULL DEFAULT '{}';
CREATE INDEX IF NOT EXISTS container_services_current_idx ON container_services (current_deployment_id);


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

-- What a user has seen of the activity log: the panel's bell shows the rest of what is his.
ALTER TABLE activity_logs ADD COLUMN IF NOT EXISTS is_read boolean DEFAULT false;
ALTER TABLE activity_logs ADD COLUMN IF NOT EXISTS read_at timestamptz;

-- Rows of these two that skyctl wrote, the only ones that it removes: what every alert of ours, and every entry of what
-- an administrator did, has in its metadata.
CREATE OR REPLACE FUNCTION skyctl_told(metadata jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT metadata ? 'alertId' AND metadata ? 'alertType'
$$;
CREATE OR REPLACE FUNCTION skyctl_logged(event_type text, metadata jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (starts_with(event_type, 'alert.') AND metadata ? 'alertId' AND metadata ? 'alertType')
           OR (starts_with(event_type, 'worker.') AND metadata ? 'actor')
$$;
CREATE INDEX IF NOT EXISTS notifications_skyctl_idx ON notifications (created_at, id) WHERE skyctl_told(metadata);
CREATE INDEX IF NOT EXISTS activity_logs_skyctl_idx ON activity_logs (created_at, id)
    WHERE skyctl_logged(event_type, metadata);


-- The log of everything that happened, in order. Rows outlive the worker: the last event of a removed worker is what
-- refuses its token. `term` is that of the monitor that concluded it.
--
-- Whoever appends holds one lock until the commit, so events become visible in the order of their numbers: a reader
-- that has seen number n misses none before it.

CREATE TABLE IF NOT EXISTS worker_events (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT skyctl_now(),
    kind        varchar(50) NOT NULL,
    worker_id   uuid,
    worker_name varchar(255),
    actor       text NOT NULL DEFAULT 'monitor',
    from_status varchar(50),
    to_status   varchar(50),
    reason      text,
    details     jsonb NOT NULL DEFAULT '{}'
);

ALTER TABLE worker_events ADD COLUMN IF NOT EXISTS term bigint;
ALTER TABLE worker_events ALTER COLUMN at SET DEFAULT skyctl_now();

CREATE INDEX IF NOT EXISTS worker_events_worker_seq_idx ON worker_events (worker_id, seq);
CREATE INDEX IF NOT EXISTS worker_events_removed_idx ON worker_events (worker_id) WHERE kind = 'removed';
CREATE INDEX IF NOT EXISTS worker_events_changed_idx ON worker_events (worker_id, at) WHERE kind = 'status_changed';
CREATE INDEX IF NOT EXISTS worker_events_flapping_idx ON worker_events (worker_id, seq)
    WHERE kind IN ('flapping', 'settled');

CREATE OR REPLACE FUNCTION skyctl_events_appended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('skyctl_events', '');
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER skyctl_events_appended AFTER INSERT ON worker_events
    FOR EACH STATEMENT EXECUTE FUNCTION skyctl_events_appended();

-- The lock of those who append. Operations take it before any row's, so that no two wait for each other.
CREATE OR REPLACE FUNCTION skyctl_lock_events() RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(7392442)
$$;

-- Removing a worker is an event whoever does it, the panel included: this trigger writes it, with the actor that the
-- operation named in the setting skyctl.actor of its transaction.
CREATE OR REPLACE FUNCTION skyctl_worker_removed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM skyctl_lock_events();
    INSERT INTO worker_events (kind, worker_id, worker_name, actor, from_status, reason)
    VALUES ('removed', OLD.id, OLD.name, coalesce(nullif(current_setting('skyctl.actor', true), ''), 'panel'), OLD.status,
            'removed from the cluster');
    RETURN OLD;
END
$$;

CREATE OR REPLACE TRIGGER skyctl_worker_removed AFTER DELETE ON container_workers
    FOR EACH ROW EXECUTE FUNCTION skyctl_worker_removed();


-- What people are told of the events. `opened_by` is the alert that opened the incident which this one closes.

CREATE TABLE IF NOT EXISTS worker_alerts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT skyctl_now(),
    kind       varchar(50) NOT NULL,
    worker_id  uuid,
    title      text NOT NULL,
    message    text NOT NULL,
    metadata   jsonb NOT NULL DEFAULT '{}',
    term       bigint
);

-- The trouble that people were told of: one row a worker, open until it is well again.
CREATE TABLE IF NOT EXISTS worker_incidents (
    worker_id            uuid PRIMARY KEY,
    alert_id             bigint NOT NULL REFERENCES worker_alerts (id),
    closed_at            timestamptz,
    exhaustion_alerted_at timestamptz
);

-- One row an alert and channel, until it has arrived or is given up. A channel is named by a digest of its URL, a
-- secret.
CREATE TABLE IF NOT EXISTS alert_deliveries (
    alert_id        bigint NOT NULL REFERENCES worker_alerts (id) ON DELETE CASCADE,
    channel         varchar(100) NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT skyctl_now(),
    delivered_at    timestamptz,
    given_up_at     timestamptz,
    error           text,
    PRIMARY KEY (alert_id, channel)
);

CREATE INDEX IF NOT EXISTS alert_deliveries_due_idx ON alert_deliveries (channel, next_attempt_at)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX IF NOT EXISTS alert_deliveries_failing_idx ON alert_deliveries (channel)
    WHERE delivered_at IS NULL AND error IS NOT NULL;
CREATE INDEX IF NOT EXISTS alert_deliveries_delivered_idx ON alert_deliveries (channel, delivered_at);
CREATE INDEX IF NOT EXISTS worker_incidents_alert_idx ON worker_incidents (alert_id);
CREATE INDEX IF NOT EXISTS worker_alerts_mass_idx ON worker_alerts (((metadata ->> 'massFailureId')), id)
    WHERE kind = 'mass_failure';

-- Many workers that went silent at once: while it is not lifted, nothing is moved off them automatically.
CREATE TABLE IF NOT EXISTS mass_failures (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    region      text,
    silent      integer NOT NULL,
    schedulable integer NOT NULL,
    detected_at timestamptz NOT NULL DEFAULT skyctl_now(),
    lifted_at   timestamptz,
    lifted_by   text
);

-- Up to version 2 these three had a limit of 255, below what a worker's or a person's name with a prefix may have, and
-- a region.
DO $$
DECLARE
    narrow record;
BEGIN
    FOR narrow IN
        SELECT attrelid::regclass AS its_table, attname FROM pg_attribute
        WHERE (attrelid, attname) IN (('worker_events'::regclass, 'actor'), ('mass_failures'::regclass, 'region'),
                                      ('mass_failures'::regclass, 'lifted_by'))
              AND atttypid = 'varchar'::regtype
    LOOP
        EXECUTE 'ALTER TABLE ' || narrow.its_table || ' ALTER COLUMN ' || quote_ident(narrow.attname) || ' TYPE text';
    END LOOP;
END
$$;


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

-- `avoid` are the workers where it failed. One that is under way when somebody cancels it is rolled back first. While
-- `source_stopped_at` is null, the old container is not known to have stopped: a lost worker must return for that.
-- `summed_up_at`: people were told of it together with what else left that worker.
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS cause varchar(50) NOT NULL DEFAULT 'drain'
    CHECK (cause IN ('worker_failed', 'drain'));
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS mass_failure_id bigint;
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS avoid uuid[] NOT NULL DEFAULT '{}';
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS cancelled_by text;
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS started_at timestamptz;
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS source_stopped_at timestamptz;
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS summed_up_at timestamptz;
-- What others deployed has no row of its own: it is known by the swarm's id and name, and kept off its node for a while.
ALTER TABLE container_migrations ALTER COLUMN service_id DROP NOT NULL;
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS swarm_service_id text;
ALTER TABLE container_migrations ADD COLUMN IF NOT EXISTS swarm_service_name text;

-- Not two at once of a service, and never a second completed one of a deployment.
CREATE UNIQUE INDEX IF NOT EXISTS container_migrations_unfinished_idx ON container_migrations (service_id)
    WHERE finished_at IS NULL;
CREATE UNIQUE INDEX IF NOT EXISTS container_migrations_completed_idx ON container_migrations (source_deployment_id)
    WHERE state = 'completed';
CREATE UNIQUE INDEX IF NOT EXISTS container_migrations_excluding_idx
    ON container_migrations (swarm_service_id, source_worker_id) WHERE finished_at IS NULL AND swarm_service_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS container_migrations_swarm_idx ON container_migrations (swarm_service_id, created_at)
    WHERE swarm_service_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS container_migrations_source_idx ON container_migrations (source_deployment_id, created_at);
CREATE INDEX IF NOT EXISTS container_migrations_ghosts_idx ON container_migrations (source_worker_id)
    WHERE state = 'completed' AND source_stopped_at IS NULL;
CREATE INDEX IF NOT EXISTS container_migrations_created_idx ON container_migrations (created_at, id);
CREATE INDEX IF NOT EXISTS container_migrations_not_summed_up_idx ON container_migrations (source_worker_id)
    WHERE summed_up_at IS NULL;
CREATE INDEX IF NOT EXISTS worker_events_migration_idx ON worker_events ((details ->> 'migrationId'), seq)
    WHERE details ? 'migrationId';
CREATE INDEX IF NOT EXISTS container_migrations_target_idx ON container_migrations (target_deployment_id);
CREATE INDEX IF NOT EXISTS container_migrations_service_idx ON container_migrations (service_id, created_at);
CREATE INDEX IF NOT EXISTS container_migrations_off_idx ON container_migrations (source_worker_id, created_at);
CREATE INDEX IF NOT EXISTS container_migrations_to_idx ON container_migrations (target_worker_id, created_at);
CREATE INDEX IF NOT EXISTS container_migrations_latest_idx
    ON container_migrations (finished_at DESC NULLS FIRST, created_at DESC, id);
CREATE INDEX IF NOT EXISTS container_migrations_over_idx ON container_migrations (finished_at, id)
    WHERE finished_at IS NOT NULL;

-- A service as its owner left it, before our first change since his last, and his own version before that. `excluded`
-- are the nodes that it was kept off by us; until `changed_at` is null again, something of ours is in it.

CREATE TABLE IF NOT EXISTS owner_specs (
    swarm_service_id text PRIMARY KEY,
    spec             jsonb NOT NULL,
    former           jsonb,
    excluded         text[] NOT NULL DEFAULT '{}',
    changed_at       timestamptz
);
CREATE INDEX IF NOT EXISTS owner_specs_changed_idx ON owner_specs (swarm_service_id) WHERE changed_at IS NOT NULL;

-- Times in which no migration is begun because somebody said so.
CREATE TABLE IF NOT EXISTS migration_pauses (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    paused_at timestamptz NOT NULL DEFAULT skyctl_now(),
    paused_by text NOT NULL,
    until_at  timestamptz,
    reason    text,
    ended_at  timestamptz,
    ended_by  text
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

-- Up to which event people have been alerted; NULL before the first monitor, which begins with what comes.
ALTER TABLE monitor_leases ADD COLUMN IF NOT EXISTS alerted_seq bigint;

-- Why the engine cannot be asked, as the leader last found; NULL where it can. Since when, when it was last found so, and
-- whether administrators were told.
ALTER TABLE monitor_leases ADD COLUMN IF NOT EXISTS engine_trouble text;
ALTER TABLE monitor_leases ADD COLUMN IF NOT EXISTS engine_away_since timestamptz;
ALTER TABLE monitor_leases ADD COLUMN IF NOT EXISTS engine_away_seen_at timestamptz;
ALTER TABLE monitor_leases ADD COLUMN IF NOT EXISTS engine_away_told boolean NOT NULL DEFAULT false;

-- How far the leader has looked for what is older than it is to be kept: `after_*` where it goes on, NULL at the
-- beginning; when it was through last; the rows that it has removed. `removed_seq`: the last event that is gone.
CREATE TABLE IF NOT EXISTS retention_sweeps (
    name        varchar(50) PRIMARY KEY,
    after_at    timestamptz,
    after_key   text,
    swept_at    timestamptz,
    removed     bigint NOT NULL DEFAULT 0,
    removed_seq bigint
);

CREATE TABLE IF NOT EXISTS serve_instances (
    id           uuid PRIMARY KEY,
    hostname     varchar(255) NOT NULL,
    pid          integer NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT skyctl_now(),
    last_seen_at timestamptz NOT NULL DEFAULT skyctl_now()
);

CREATE TABLE IF NOT EXISTS serve_outages (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL
);


-- Which installation this is: `serve` says it, so that `doctor` notices the serve of another one. A copy of the
-- database has the same.
CREATE TABLE IF NOT EXISTS skyctl_installation (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    id      uuid NOT NULL DEFAULT gen_random_uuid()
);

-- The key of workers' tokens is derived from the signing secret and from the salt, which is for nobody but `serve` and
-- `monitor` to see: where the secret can be guessed, a host that lacks the salt can try no guess. Tokens of
-- administrators that were issued before admin_tokens_from are refused.
ALTER TABLE skyctl_installation ADD COLUMN IF NOT EXISTS worker_key_salt text NOT NULL
    DEFAULT replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
ALTER TABLE skyctl_installation ADD COLUMN IF NOT EXISTS admin_tokens_from timestamptz;

INSERT INTO skyctl_installation DEFAULT VALUES ON CONFLICT DO NOTHING;

-- The public key of the agent's releases, which the scripts that `serve` makes pin on hosts.
ALTER TABLE skyctl_installation ADD COLUMN IF NOT EXISTS release_key text;


-- What `serve`, which may not ask the engine, and the monitor, which may, hand each other.

-- How a host joins the swarm, as the monitor last found it; both NULL where there is no swarm, no row before it looked.
CREATE TABLE IF NOT EXISTS swarm_joins (
    is_only    boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    address    varchar(255),
    token      text,
    updated_at timestamptz NOT NULL DEFAULT skyctl_now()
);

-- The nodes of workers that were removed, until the monitor has taken them out of the swarm.
CREATE TABLE IF NOT EXISTS node_removals (
    node_id     varchar(255) PRIMARY KEY,
    worker_name varchar(255) NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT skyctl_now()
);
-- Whether we closed the node, which one that stays is not to remain.
ALTER TABLE node_removals ADD COLUMN IF NOT EXISTS is_closed boolean NOT NULL DEFAULT false;

-- The certificates that `serve` asks for, and what the monitor has signed, or why not. The id is the request's SHA-256.
CREATE TABLE IF NOT EXISTS certificate_requests (
    id          varchar(64) PRIMARY KEY,
    request     text NOT NULL CHECK (length(request) <= 20000),
    asked_at    timestamptz NOT NULL DEFAULT skyctl_now(),
    certificate text,
    refusal     text
);

-- What callers of the API ask of the monitor, since `serve` has neither the engine nor the channels nor the key of
-- releases; and what came of it. A row lives for as long as its caller waits.
CREATE TABLE IF NOT EXISTS monitor_requests (
    id          uuid PRIMARY KEY,
    route       text NOT NULL,
    request     text NOT NULL CHECK (length(request) <= 600000),
    asked_at    timestamptz NOT NULL DEFAULT skyctl_now(),
    taken_at    timestamptz,
    outcome     text
);


-- Which of these files the database has seen: the version is raised by hand with every change above.

CREATE TABLE IF NOT EXISTS skyctl_schema (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Up to version 6 nobody noted whose a deployment was: beside the panel, which has build_logs, only what a move made is
-- ours for sure.
DO $$
BEGIN
    IF (SELECT max(version) FROM skyctl_schema) < 7 THEN
        UPDATE container_deployments SET by_skyctl = true
        WHERE created_as <> id OR NOT EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = 'container_deployments'::regclass AND attname = 'build_logs');
    END IF;
END
$$;

-- Version 7 is told apart, since what it ended is accepted for a while from then on.
INSERT INTO skyctl_schema (version) VALUES (7), (8), (9), (10), (11), (12), (13), (14) ON CONFLICT DO NOTHING;
