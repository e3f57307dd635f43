import type { Migration } from './migrate.ts'

/** Everything that is stored, in the order in which it came to be. An entry is never changed once released. */
export const MIGRATIONS: readonly Migration[] = [
  {
    version: 1,
    name: 'deployments and their log',
    sql: `
      -- One row. Whoever appends locks it until commit: positions are therefore contiguous, and given in commit order.
      create table log (
        only_row boolean primary key default true check (only_row),
        id int not null default 1000 + floor(random() * 8000)::int check (id between 1000 and 8999),
        head bigint not null default 0
      );
      insert into log default values;

      create table deployments (
        id uuid primary key,
        org text not null,
        repo text not null,
        visibility text not null check (visibility in ('PUBLIC', 'PRIVATE')),
        description text,
        branch text not null,

        step text not null check (step in ('DEPLOY', 'CREATE_ORG', 'CREATE_REPO', 'PUSH_CONTENTS', 'DONE')),
        status text not null check (status in ('QUEUED', 'RUNNING', 'WAITING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
        text text not null,
        sequence int not null,
        attempt int not null,
        progress jsonb,
        waiting_until timestamptz,
        error jsonb,
        repository_id text,
        repository_url text,
        clone_url text,
        commit_sha text,
        file_count int not null,
        size_bytes int not null,
        created_at timestamptz not null,
        updated_at timestamptz not null,
        finished_at timestamptz,

        idempotency_key text,
        input_digest text not null,
        planned_commit text not null,
        planned_tree text not null,
        object_count int not null,
        pack_bytes int not null,

        -- Since when it may run; first come, first served.
        run_at timestamptz not null,
        -- Who runs it, and until when that holds without a heartbeat. Times are the database's own.
        lease_owner text,
        lease_until timestamptz,
        -- Goes up with each new runner; every write of a runner says: where epoch = mine.
        epoch int not null default 0,
        cancel_requested boolean not null default false,
        -- Since the last step was reached: failed calls that were tried again, and runners that died.
        tries int not null default 0,
        takeovers int not null default 0
      );
      create unique index deployments_idempotency_key on deployments (idempotency_key);
      create unique index deployments_active_repository on deployments (lower(org), lower(repo))
        where status in ('QUEUED', 'RUNNING', 'WAITING');
      create index deployments_due on deployments (run_at) where status in ('QUEUED', 'WAITING');
      create index deployments_leased on deployments (lease_until) where status = 'RUNNING';
      create index deployments_by_repository on deployments (lower(org), lower(repo), id);
      create index deployments_by_status on deployments (status, id);

      create table deployment_contents (
        deployment_id uuid not null references deployments deferrable initially deferred,
        kind text not null check (kind in ('pack', 'index')),
        part int not null,
        bytes bytea not null,
        primary key (deployment_id, kind, part)
      );
      -- Packs are deflated already.
      alter table deployment_contents alter column bytes set storage external;

      create table events (
        position bigint primary key,
        deployment_id uuid not null references deployments,
        sequence int not null,
        at timestamptz not null,
        origin text,
        deployment jsonb not null,
        unique (deployment_id, sequence)
      );

      -- What viewers are told of a deployment: DeploymentSnapshot.
      create function deployment_snapshot(d deployments) returns jsonb language sql stable as $$
        select jsonb_build_object(
          'id', d.id, 'org', d.org, 'repo', d.repo, 'visibility', d.visibility, 'description', d.description,
          'branch', d.branch, 'step', d.step, 'status', d.status, 'text', d.text, 'sequence', d.sequence,
          'attempt', d.attempt, 'progress', d.progress, 'waitingUntil', d.waiting_until, 'error', d.error,
          'repositoryUrl', d.repository_url, 'cloneUrl', d.clone_url, 'commitSha', d.commit_sha,
          'fileCount', d.file_count, 'sizeBytes', d.size_bytes, 'createdAt', d.created_at,
          'updatedAt', d.updated_at, 'finishedAt', d.finished_at
        )
      $$;

      -- The last thing a transaction does: from here to its commit, all other appends wait.
      create function append_event(d deployments, origin text) returns events language plpgsql as $$
        declare
          next_position bigint;
          appended events;
        begin
          update log set head = head + 1 returning head into next_position;
          insert into events values (next_position, d.id, d.sequence, d.updated_at, origin, deployment_snapshot(d))
            returning * into appended;
          return appended;
        end
      $$;
    `,
  },
  {
    version: 2,
    name: 'turns of organizations, and contents that are not kept for ever',
    sql: `
      -- Its place in the queue: organizations take turns, and within one it is first come, first served. Given by
      -- next_turn when the deployment begins to wait (start-time fair queueing, Goyal, Vin, Cheng 1996, all weights 1).
      alter table deployments add column turn bigint not null default 0;
      -- Null: its contents are stored; see RETENTION_DAYS.
      alter table deployments add column contents_removed_at timestamptz;

      create index deployments_queue on deployments (turn, run_at) where status in ('QUEUED', 'WAITING');
      create index deployments_running_turn on deployments (turn) where status = 'RUNNING';
      create index deployments_organization_turn on deployments (lower(org), turn)
        where status in ('QUEUED', 'RUNNING', 'WAITING');
      create index deployments_ended_with_contents on deployments (finished_at)
        where finished_at is not null and contents_removed_at is null;
      drop index deployments_due;

      -- A deployment's row is written about ten times, mostly in columns without an index: with room left on its page
      -- that touches no index (README.HOT in PostgreSQL's source).
      alter table deployments set (fillfactor = 60);
      -- append_event takes the very row that it would check for, and would do so while all other appends wait.
      alter table events drop constraint events_deployment_id_fkey;

      create or replace function append_event(d deployments, origin text) returns events language plpgsql as $$
        declare
          -- Before the lock: what it takes is not for others to wait for.
          snapshot jsonb := deployment_snapshot(d);
          next_position bigint;
          appended events;
        begin
          update log set head = head + 1 returning head into next_position;
          insert into events values (next_position, d.id, d.sequence, d.updated_at, origin, snapshot)
            returning * into appended;
          return appended;
        end
      $$;

      -- One more than the organization's last active one, but not before those that run now: who comes anew comes
      -- next, and who sends thirty has one place in each round. The lock makes the deployments of one organization
      -- take different turns although they come at once; each statement of a volatile function sees what was committed
      -- before it, so what is read here is what the last holder of the lock has left.
      create function next_turn(organization text) returns bigint language plpgsql volatile as $$
        begin
          perform pg_advisory_xact_lock(7447229, hashtext(lower(organization)));
          return (
            select greatest(
              (select max(turn) + 1 from deployments
               where lower(org) = lower(organization) and status in ('QUEUED', 'RUNNING', 'WAITING')),
              coalesce(
                (select max(turn) from deployments where status = 'RUNNING'),
                (select min(turn) from deployments where status in ('QUEUED', 'WAITING')),
                0
              )
            )
          );
        end
      $$;
    `,
  },
  {
    version: 3,
    name: 'pauses of GitHub credentials',
    sql: `
      -- One row a credential, which is named by a hash: the credential itself is never stored.
      create table github_credentials (
        id text primary key,
        -- GitHub's rate limits: until when nobody asks it for anything, how often in a row, and how often ever.
        paused_until timestamptz,
        strikes int not null default 0,
        pauses int not null default 0,
        struck_by_write boolean not null default false,
        -- The next free turn to write.
        next_write_at timestamptz not null default '-infinity',
        -- Repositories created within an hour of the first.
        hour_began_at timestamptz not null default '-infinity',
        creations int not null default 0
      );
    `,
  },
  {
    version: 4,
    name: 'each event names the one before it',
    sql: `
      -- A random number of each event, and that of the event before: whoever holds an event knows whether a log is the
      -- same up to there. A failover that loses commits, or a restore, makes another log with the same positions.
      alter table log add column link bigint not null default 0, add column follows bigint not null default 0;
      alter table events add column link bigint not null default 0, add column follows bigint not null default 0;

      create or replace function append_event(d deployments, origin text) returns events language plpgsql as $$
        declare
          -- Before the lock: what it takes is not for others to wait for.
          snapshot jsonb := deployment_snapshot(d);
          own_link bigint := floor(random() * 9e15);
          next_position bigint;
          followed bigint;
          appended events;
        begin
          update log set head = head + 1, follows = link, link = own_link
            returning head, follows into next_position, followed;
          insert into events (position, deployment_id, sequence, at, origin, deployment, link, follows)
            values (next_position, d.id, d.sequence, d.updated_at, origin, snapshot, own_link, followed)
            returning * into appended;
          return appended;
        end
      $$;
    `,
  },
  {
    version: 5,
    name: 'who may do what, and who did',
    sql: `
      -- Tokens of services and sessions of browsers, by the SHA-256 hash of their secret.
      create table access_credentials (
        id uuid primary key,
        kind text not null check (kind in ('token', 'session')),
        secret_hash bytea not null unique check (length(secret_hash) = 32),
        -- The same over several credentials of one service or person.
        subject_id text not null,
        name text not null,
        -- [{"role": "deployer", "orgs": ["acme"]}]; orgs may be "all".
        grants jsonb not null,
        created_at timestamptz not null,
        expires_at timestamptz not null,
        revoked_at timestamptz,
        last_used_at timestamptz
      );
      create index access_credentials_by_subject on access_credentials (subject_id) where revoked_at is null;
      create index access_credentials_ended_sessions on access_credentials (least(expires_at, revoked_at))
        where kind = 'session';

      -- Somebody is on their way to the provider and back. Taken out by who comes back: once.
      create table sign_ins (
        state_hash bytea primary key,
        -- Of a secret that only the browser has in which it began.
        browser_hash bytea not null,
        provider text not null,
        code_verifier text not null,
        nonce text not null,
        return_to text not null,
        -- The session that the browser had until then.
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

      -- Who asked for it: {"id": "service:ci", "name": "ci"}; null before there were accounts.
      alter table deployments add column requested_by jsonb;
      -- A key is its subject's own: others can neither find a deployment by it nor be in its way.
      drop index deployments_idempotency_key;
      create unique index deployments_idempotency_key
        on deployments (coalesce(requested_by ->> 'id', 'local'), idempotency_key);
      -- For those who see only some organizations.
      create index deployments_by_organization on deployments (lower(org), id);

      create or replace function deployment_snapshot(d deployments) returns jsonb language sql stable as $$
        select jsonb_build_object(
          'id', d.id, 'org', d.org, 'repo', d.repo, 'visibility', d.visibility, 'description', d.description,
          'branch', d.branch, 'step', d.step, 'status', d.status, 'text', d.text, 'sequence', d.sequence,
          'attempt', d.attempt, 'progress', d.progress, 'waitingUntil', d.waiting_until, 'error', d.error,
          'repositoryUrl', d.repository_url, 'cloneUrl', d.clone_url, 'commitSha', d.commit_sha,
          'fileCount', d.file_count, 'sizeBytes', d.size_bytes, 'createdAt', d.created_at,
          'updatedAt', d.updated_at, 'finishedAt', d.finished_at, 'requestedBy', d.requested_by
        )
      $$;
    `,
  },
  {
    version: 6,
    name: 'warnings',
    sql: `
      -- What people should know of a deployment that was accepted: sentences, and how many there are in all.
      alter table deployments
        add column warnings jsonb not null default '[]', add column warning_count int not null default 0;

      create or replace function deployment_snapshot(d deployments) returns jsonb language sql stable as $$
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
    `,
  },
  {
    version: 7,
    name: 'several installations in one database',
    sql: `
      -- A secret of this installation, from which the name of its notification channel is made.
      create table installation (
        only_row boolean primary key default true check (only_row),
        id uuid not null default gen_random_uuid()
      );
      insert into installation default values;

      -- The first events of two logs do not follow each other.
      update log set link = floor(random() * 9e15) where head = 0;

      -- lower() is then the same in every locale: in a Turkish one it makes another letter of "I".
      alter table deployments alter column org type text collate "C", alter column repo type text collate "C";

      -- Advisory locks are the database's: the lock is named after this very table.
      create or replace function next_turn(organization text) returns bigint language plpgsql volatile as $$
        declare
          name text := lower(organization collate "C");
        begin
          perform pg_advisory_xact_lock(
            hashtextextended(format('shipcast turn %s %s', 'deployments'::regclass::oid, name), 0)
          );
          return (
            select greatest(
              (select max(turn) + 1 from deployments
               where lower(org) = name and status in ('QUEUED', 'RUNNING', 'WAITING')),
              coalesce(
                (select max(turn) from deployments where status = 'RUNNING'),
                (select min(turn) from deployments where status in ('QUEUED', 'WAITING')),
                0
              )
            )
          );
        end
      $$;
    `,
  },
]
