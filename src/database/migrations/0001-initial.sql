-- The installation -----------------------------------------------------------------------------------------

-- One row. The name of the installation's notification channel is derived from this secret.
create table installation (
  only_row boolean primary key default true check (only_row),
  id uuid not null default gen_random_uuid()
);
insert into installation default values;

-- Deployments ----------------------------------------------------------------------------------------------

create table deployments (
  -- A UUID of version 7: ids sort in order of acceptance.
  id uuid primary key,
  -- With collation "C", lower() gives the same result in every locale: a Turkish one maps "I" to another
  -- letter.
  org text collate "C" not null,
  repo text collate "C" not null,
  visibility text not null check (visibility in ('PUBLIC', 'PRIVATE')),
  description text,
  branch text not null,
  -- {"id": "service:ci", "name": "ci"}; null without access control.
  requested_by jsonb,

  -- Progress, as subscribers see it
  step text not null check (step in ('DEPLOY', 'CREATE_ORG', 'CREATE_REPO', 'PUSH_CONTENTS', 'DONE')),
  status text not null check (status in ('QUEUED', 'RUNNING', 'WAITING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
  text text not null,
  -- The number of events so far.
  sequence int not null,
  -- 1, and one more for each retryDeployment.
  attempt int not null,
  progress jsonb,
  waiting_until timestamptz,
  error jsonb,
  -- Sentences about the accepted input: at most 20, and their total number.
  warnings jsonb not null default '[]',
  warning_count int not null default 0,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  finished_at timestamptz,

  -- The result
  repository_id text,
  repository_url text,
  clone_url text,
  commit_sha text,

  -- The request, fixed at acceptance
  idempotency_key text,
  input_digest text not null,
  planned_commit text not null,
  planned_tree text not null,
  file_count int not null,
  size_bytes int not null,
  object_count int not null,
  pack_bytes int not null,
  -- Null while the contents are stored; see RETENTION_DAYS.
  contents_removed_at timestamptz,

  -- The queue. Organizations take turns; within one, deployments run first come, first served. queue_rank is
  -- the virtual start time of start-time fair queueing (Goyal, Vin, Cheng 1996) with equal weights.
  queue_rank bigint not null default 0,
  run_at timestamptz not null,

  -- The lease: who runs the deployment, and until when without a heartbeat, by the database's clock.
  leased_by text,
  lease_expires_at timestamptz,
  -- The fencing token: grows with each claim, and every write of a runner checks it.
  epoch int not null default 0,
  cancel_requested boolean not null default false,
  -- Since the last step was reached: automatic retries, and runners that died.
  retry_count int not null default 0,
  reclaim_count int not null default 0
)
-- A row is updated about ten times, mostly in columns without an index. With free space on its page, such an
-- update touches no index (README.HOT in PostgreSQL's source).
with (fillfactor = 60);

create unique index deployments_active_repository on deployments (lower(org), lower(repo))
  where status in ('QUEUED', 'RUNNING', 'WAITING');
-- A key belongs to its subject: others can neither find a deployment by it nor collide with it.
create unique index deployments_idempotency_key
  on deployments (coalesce(requested_by ->> 'id', 'local'), idempotency_key);

create index deployments_by_repository on deployments (lower(org), lower(repo), id);
create index deployments_by_organization on deployments (lower(org), id);
create index deployments_by_status on deployments (status, id);

create index deployments_queue on deployments (queue_rank, run_at) where status in ('QUEUED', 'WAITING');
create index deployments_queue_rank_of_running on deployments (queue_rank) where status = 'RUNNING';
create index deployments_queue_rank_by_organization on deployments (lower(org), queue_rank)
  where status in ('QUEUED', 'RUNNING', 'WAITING');
create index deployments_leased on deployments (lease_expires_at) where status = 'RUNNING';
create index deployments_ended_with_contents on deployments (finished_at)
  where finished_at is not null and contents_removed_at is null;

-- The rank for a deployment that joins the queue: one more than the organization's last active deployment,
-- but not less than those that run now. An organization without active deployments therefore comes next, and
-- one that sends thirty gets one place in each round.
create function next_queue_rank(organization text) returns bigint language plpgsql volatile as $$
  declare
    name text := lower(organization collate "C");
  begin
    -- Simultaneous deployments of one organization get different ranks: each statement of a volatile function
    -- sees what was committed before it, including the rank that the previous holder of the lock assigned.
    -- Advisory locks are shared by the whole database, so the key includes the oid of this table.
    perform pg_advisory_xact_lock(
      hashtextextended(format('shipcast queue rank %s %s', 'deployments'::regclass::oid, name), 0)
    );
    return (
      select greatest(
        (select max(queue_rank) + 1 from deployments
         where lower(org) = name and status in ('QUEUED', 'RUNNING', 'WAITING')),
        coalesce(
          (select max(queue_rank) from deployments where status = 'RUNNING'),
          (select min(queue_rank) from deployments where status in ('QUEUED', 'WAITING')),
          0
        )
      )
    );
  end
$$;

-- What the runner will push: a Git pack and its index, in parts.
create table deployment_contents (
  deployment_id uuid not null references deployments deferrable initially deferred,
  kind text not null check (kind in ('pack', 'index')),
  part int not null,
  bytes bytea not null,
  primary key (deployment_id, kind, part)
);
-- Packs are already compressed.
alter table deployment_contents alter column bytes set storage external;

-- The event log --------------------------------------------------------------------------------------------

-- One row. append_event locks it until commit, so positions are contiguous and in commit order.
create table log (
  only_row boolean primary key default true check (only_row),
  -- Identifies this log in cursors; changes when the log has lost events.
  id int not null default 1000 + floor(random() * 8000)::int check (id between 1000 and 8999),
  -- The position and event_id of the newest event, and the event_id of the event before it. Before the first
  -- event: position 0 and a random event_id, so that the first events of two logs differ.
  head bigint not null default 0,
  event_id bigint not null default floor(random() * 9e15),
  previous_event_id bigint not null default 0
);
insert into log default values;

create table events (
  position bigint primary key,
  -- No foreign key: append_event gets the row itself, and checking it again would delay all other appends.
  deployment_id uuid not null,
  sequence int not null,
  at timestamptz not null,
  -- The connection whose request caused the event.
  origin text,
  deployment jsonb not null,
  -- Each event names the one before it. A failover that loses commits, or a restore, makes another log with
  -- the same positions; two logs that have the same event_id at a position are identical up to it.
  event_id bigint not null default 0,
  previous_event_id bigint not null default 0,
  unique (deployment_id, sequence)
);

-- What subscribers see of a deployment: DeploymentSnapshot.
create function deployment_snapshot(d deployments) returns jsonb language sql stable as $$
  select jsonb_build_object(
    'id', d.id, 'org', d.org, 'repo', d.repo, 'visibility', d.visibility, 'description', d.description,
    'branch', d.branch, 'step', d.step, 'status', d.status, 'text', d.text, 'sequence', d.sequence,
    'attempt', d.attempt, 'progress', d.progress, 'waitingUntil', d.waiting_until, 'error', d.error,
    'repositoryUrl', d.repository_url, 'cloneUrl', d.clone_url, 'commitSha', d.commit_sha,
    'fileCount', d.file_count, 'sizeBytes', d.size_bytes, 'createdAt', d.created_at,
    'updatedAt', d.updated_at, 'finishedAt', d.finished_at, 'requestedBy', d.requested_by,
    'warnings', d.warnings, 'warningCount', d.warning_count
  )
$$;

-- The last statement of its transaction: until the commit, all other appends wait.
create function append_event(d deployments, origin text) returns events language plpgsql as $$
  declare
    -- Computed before the lock, so that others do not wait for it.
    snapshot jsonb := deployment_snapshot(d);
    new_event_id bigint := floor(random() * 9e15);
    new_position bigint;
    last_event_id bigint;
    appended events;
  begin
    update log set head = head + 1, previous_event_id = event_id, event_id = new_event_id
      returning head, previous_event_id into new_position, last_event_id;
    insert into events (position, deployment_id, sequence, at, origin, deployment, event_id, previous_event_id)
      values (new_position, d.id, d.sequence, d.updated_at, origin, snapshot, new_event_id, last_event_id)
      returning * into appended;
    return appended;
  end
$$;

-- GitHub's rate limits -------------------------------------------------------------------------------------

-- One row for each credential, identified by a hash: the credential itself is never stored.
create table github_credentials (
  id text primary key,
  paused_until timestamptz,
  -- Consecutive rate-limit responses, and all pauses so far.
  consecutive_rate_limits int not null default 0,
  pause_count int not null default 0,
  -- Whether one of the consecutive rate-limit responses was to a write.
  limited_by_write boolean not null default false,
  -- When the next write slot is free.
  next_write_at timestamptz not null default '-infinity',
  -- Repositories created within an hour of the first.
  creation_window_start timestamptz not null default '-infinity',
  creation_count int not null default 0
);

-- Access ---------------------------------------------------------------------------------------------------

-- Tokens of services and sessions of browsers, by the SHA-256 hash of their secret.
create table access_credentials (
  id uuid primary key,
  kind text not null check (kind in ('token', 'session')),
  secret_hash bytea not null unique check (length(secret_hash) = 32),
  -- The same for several credentials of one service or person.
  subject_id text not null,
  name text not null,
  -- [{"role": "deployer", "orgs": ["acme"]}]; orgs can be "all".
  grants jsonb not null,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  last_used_at timestamptz
);
create index access_credentials_by_subject on access_credentials (subject_id) where revoked_at is null;
create index access_credentials_ended_sessions on access_credentials (least(expires_at, revoked_at))
  where kind = 'session';

-- Sign-ins in progress: from the redirect to the provider until the browser returns, which deletes the row.
create table sign_ins (
  state_hash bytea primary key,
  -- The hash of a secret that only the browser that started the sign-in has.
  browser_hash bytea not null,
  provider text not null,
  code_verifier text not null,
  nonce text not null,
  return_to text not null,
  -- The browser's previous session.
  session_id uuid,
  expires_at timestamptz not null
);
create index sign_ins_ended on sign_ins (expires_at);

create table audit_log (
  id uuid primary key,
  at timestamptz not null,
  action text not null,
  subject_id text,
  subject text,
  address text,
  target text,
  deployment_id uuid,
  result text not null
);
create index audit_log_by_subject on audit_log (subject, id);
create function refuse_change() returns trigger language plpgsql as $$
  begin
    raise exception '% is append-only', tg_table_name using errcode = 'insufficient_privilege';
  end
$$;
create trigger audit_log_is_append_only before update or delete or truncate on audit_log
  execute function refuse_change();
