import { PubSubEngine } from 'graphql-subscriptions'
import pg from 'pg'
import type { EventNotification, EventRow } from '../../../src/events/event-log.ts'
import { findFreePort } from '../../../test/support/test-server.ts'
import { monotonicNowMs } from '../clock.ts'
import { SAMPLE_DEPLOYMENT } from '../events.ts'
import { serve } from './serve.ts'

/*
 * The build of Shipcast, started by the same createApp as in main.ts. Events are appended to its log by
 * the runner's own SQL function and announced with the notification of its EventLog. These statements are
 * part of the measurement.
 */

const statements = countStatements()
const built = (path: string) => import(new URL(`../../../dist/${path}`, import.meta.url).href)
const { Config } = (await built('config/config.js')) as typeof import('../../../src/config/config.ts')
const { Database } = (await built(
  'database/database.js',
)) as typeof import('../../../src/database/database.ts')
const { DEPLOYMENTS_TOPIC, EventLog, toEvent } = (await built(
  'events/event-log.js',
)) as typeof import('../../../src/events/event-log.ts')
const { createApp } = (await built('create-app.js')) as typeof import('../../../src/create-app.ts')

const port = await findFreePort()
const config = new Config({ ...process.env, PORT: String(port), LOG_LEVEL: 'warn' })
const app = await createApp(config)
await app.listen(config.port, config.host)

const database = app.get(Database)
const pubSub = app.get(PubSubEngine)
const { logId } = await app.get(EventLog).readHead()
let sequence = 0
await prepareDeployment()

serve({
  url: `ws://127.0.0.1:${port}/graphql`,
  lastSequence: () => sequence,
  async emitTogether(count) {
    const rows = await database.query<EventRow>('select * from bench_emit($1, $2)', [
      SAMPLE_DEPLOYMENT.id,
      count,
    ])
    sequence += rows.length
    const at = monotonicNowMs()
    for (const row of rows) {
      const notification: EventNotification = { logId, event: toEvent(row) }
      void pubSub.publish(DEPLOYMENTS_TOPIC, notification)
    }
    return at
  },
  close: () => app.close(),
  extraCommands: {
    statements: () => Object.fromEntries(statements),
    resetStatements: () => statements.clear(),
  },
})

/** One row that no runner claims: it has no lease that could expire. */
async function prepareDeployment(): Promise<void> {
  await database.query(
    `insert into deployments (id, org, repo, visibility, description, branch, step, status, text, sequence, attempt,
       progress, repository_url, clone_url, file_count, size_bytes, created_at, updated_at, input_digest,
       planned_commit, planned_tree, object_count, pack_bytes, run_at)
     select d.id, d.org, d.repo, d.visibility, d.description, d.branch, d.step, d.status, d.text, 0, d.attempt,
       d.progress, d."repositoryUrl", d."cloneUrl", d."fileCount", d."sizeBytes", d."createdAt", now(), '', '', '', 0,
       0, now()
     from jsonb_to_record($1) as d (id uuid, org text, repo text, visibility text, description text, branch text,
       step text, status text, text text, attempt int, progress jsonb, "repositoryUrl" text, "cloneUrl" text,
       "fileCount" int, "sizeBytes" int, "createdAt" timestamptz)`,
    [JSON.stringify(SAMPLE_DEPLOYMENT)],
  )
  await database.query(`
    create function bench_emit(deployment uuid, event_count int) returns setof events language plpgsql as $$
      declare
        moved deployments;
      begin
        for i in 1..event_count loop
          update deployments set sequence = sequence + 1, updated_at = clock_timestamp() where id = deployment
            returning * into moved;
          return query select * from append_event(moved, null);
        end loop;
      end
    $$`)
}

/** How often each statement is sent to Postgres, by its text. */
function countStatements(): Map<string, number> {
  const counts = new Map<string, number>()
  const { query } = pg.Client.prototype
  pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
    const [statement] = args
    const text =
      typeof statement === 'string' ? statement : ((statement as { text?: string }).text ?? 'unknown')
    counts.set(text, (counts.get(text) ?? 0) + 1)
    return Reflect.apply(query, this, args)
  } as typeof query
  return counts
}
