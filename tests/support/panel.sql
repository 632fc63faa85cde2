-- A database as the panel makes it, written from facts about the panel's tables.
-- The embedded server has no contributed extensions: this stands for the one function that uuid-ossp gives the panel.
CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()';

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    email varchar(255) NOT NULL UNIQUE,
    password_hash varchar(255) NOT NULL,
    name varchar(255) NOT NULL,
    role varchar(50) DEFAULT 'user' CHECK (role IN ('admin', 'user')),
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);
CREATE TABLE organizations (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    name varchar(255) NOT NULL,
    slug varchar(255) NOT NULL UNIQUE,
    owner_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    settings jsonb DEFAULT '{}',
    container_quota_usage jsonb DEFAULT '{}',
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);
CREATE TABLE organization_members (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role varchar(50) DEFAULT 'member' CHECK (role IN ('owner', 'admin', 'member')),
    created_at timestamptz DEFAULT now(),
    UNIQUE (organization_id, user_id)
);
CREATE TABLE activity_logs (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    user_id uuid,
    organization_id uuid,
    event_type varchar(100) NOT NULL,
    entity_type varchar(100) NOT NULL,
    entity_id varchar(255),
    message text,
    status varchar(50) DEFAULT 'info' CHECK (status IN ('success', 'warning', 'error', 'info')),
    ip_address varchar(64),
    user_agent text,
    metadata jsonb DEFAULT '{}',
    created_at timestamptz DEFAULT now(),
    is_read boolean DEFAULT false,
    read_at timestamptz,
    CHECK (user_id IS NOT NULL OR entity_type = 'system')
);
CREATE TABLE container_workers (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    name varchar(255) NOT NULL,
    hostname varchar(255) NOT NULL,
    ip_address inet NOT NULL,
    swarm_node_id varchar(255) UNIQUE,
    auth_token_hash varchar(255) NOT NULL,
    status varchar(50) DEFAULT 'pending' CHECK (status IN ('pending', 'active', 'unhealthy', 'draining', 'offline')),
    capacity jsonb NOT NULL DEFAULT '{"cpu_cores": 0, "memory_mb": 0, "disk_gb": 0}',
    current_load jsonb NOT NULL DEFAULT '{"cpu_percent": 0, "memory_percent": 0, "disk_percent": 0, "container_count": 0}',
    last_heartbeat_at timestamptz,
    metadata jsonb DEFAULT '{}',
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);
CREATE INDEX idx_workers_status ON container_workers (status);
CREATE INDEX idx_workers_heartbeat ON container_workers (last_heartbeat_at);
CREATE INDEX idx_workers_node ON container_workers (swarm_node_id);
CREATE TABLE container_services (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    organization_id uuid NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    name varchar(255) NOT NULL,
    slug varchar(255) NOT NULL,
    template_id uuid,
    git_repository varchar(500),
    git_branch varchar(255) DEFAULT 'main',
    build_config jsonb NOT NULL DEFAULT '{"environment_type": "nix"}',
    environment_vars jsonb DEFAULT '{}',
    resource_limits jsonb NOT NULL DEFAULT '{"cpu_cores": 1, "memory_mb": 512, "disk_gb": 10}',
    status varchar(50) DEFAULT 'pending'
        CHECK (status IN ('pending', 'building', 'deploying', 'running', 'stopped', 'failed', 'deleted')),
    current_deployment_id uuid,
    public_url varchar(500),
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    UNIQUE (organization_id, slug)
);
CREATE TABLE container_deployments (
    id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
    service_id uuid NOT NULL REFERENCES container_services (id) ON DELETE CASCADE,
    worker_id uuid REFERENCES container_workers (id) ON DELETE SET NULL,
    swarm_service_id varchar(255),
    container_id varchar(255),
    image_tag varchar(255) NOT NULL,
    status varchar(50) DEFAULT 'pending'
        CHECK (status IN ('pending', 'building', 'deploying', 'running', 'stopped', 'failed', 'rolled_back')),
    build_logs text,
    deployment_logs text,
    public_url varchar(500),
    internal_port integer,
    external_port integer,
    deployed_at timestamptz,
    stopped_at timestamptz,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);
ALTER TABLE container_services ADD CONSTRAINT fk_current_deployment
    FOREIGN KEY (current_deployment_id) REFERENCES container_deployments (id) ON DELETE SET NULL;

CREATE TRIGGER touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER touch BEFORE UPDATE ON organizations FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER touch BEFORE UPDATE ON container_workers FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER touch BEFORE UPDATE ON container_services FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
CREATE TRIGGER touch BEFORE UPDATE ON container_deployments FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

-- The quota: at each change of a service's status, what its organization uses is summed up from the limits, which the
-- panel's API writes in camelCase and this reads in snake_case; memory and disk have to be whole numbers.
CREATE FUNCTION sum_up_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR OLD.status <> NEW.status THEN
        UPDATE organizations SET container_quota_usage = (
            SELECT jsonb_build_object(
                'cpu_cores', coalesce(sum((resource_limits ->> 'cpu_cores')::decimal), 0),
                'memory_mb', coalesce(sum((resource_limits ->> 'memory_mb')::bigint), 0),
                'disk_gb', coalesce(sum((resource_limits ->> 'disk_gb')::bigint), 0),
                'service_count', count(*)
            )
            FROM container_services
            WHERE organization_id = NEW.organization_id AND status IN ('pending', 'building', 'deploying', 'running')
        ) WHERE id = NEW.organization_id;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER quota AFTER INSERT OR UPDATE ON container_services FOR EACH ROW EXECUTE FUNCTION sum_up_usage();
