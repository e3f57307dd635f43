import { setTimeout as sleep } from 'node:timers/promises'
import { Database } from '../dist/database/database.js'
import { LeaseStore } from '../dist/deployments/runner/lease-store.js'
import { EventLog } from '../dist/events/event-log.js'
import { PostgresPubSub } from '../dist/pubsub/postgres-pubsub.js'

/*
 * Makes the writes of a runner without a forge: `node append-events.mjs <seconds> <concurrency> [events per
 * second]`, by default as fast as possible. The database of DATABASE_URL must contain deployments that are
 * QUEUED, or leased by "bench". Claims each one if necessary, advances it to the end, and sends the same
 * notifications as a server. Prints {"events": …, "seconds": …}.
 */
const [seconds, concurrency, rate = Number.POSITIVE_INFINITY] = process.argv.slice(2).map(Number)
const database = await Database.open({ url: process.env.DATABASE_URL, dataDir: '' })
const pubSub = new PostgresPubSub(database)
await pubSub.start()
const log = new EventLog(database, pubSub)
// Notifications carry the log id that was read last; with another one, receivers would read the log instead.
await log.readHead()
const leases = new LeaseStore(database, log)
const leaseHolder = { name: 'bench', leaseMs: 600_000 }
const repository = { id: '1', url: 'https://forge.test/a/b', cloneUrl: 'https://forge.test/a/b.git' }
const results = [
  { step: 'CREATE_ORG' },
  { step: 'CREATE_REPO', repository },
  { step: 'PUSH_CONTENTS', commitSha: '0'.repeat(40) },
]

const leased = await database.query(
  `select id, epoch, leased_by as owner, step from deployments where status = 'RUNNING' and leased_by = 'bench'`,
)
let events = 0
let writeCount = 0
let isClaiming = false
const waiting = []
const startedAt = performance.now()
const isOver = () => performance.now() - startedAt > seconds * 1_000
await Promise.all(Array.from({ length: concurrency }, run))
console.log(JSON.stringify({ events, seconds: (performance.now() - startedAt) / 1_000 }))
await pubSub.close()
await database.close()

async function run() {
  while (!isOver()) {
    let deployment = leased.pop() ?? (await nextClaimed())
    for (const result of results) {
      await waitForPace()
      if (await leases.advance(deployment, result)) events++
      deployment = { ...deployment, step: result.step }
    }
    await waitForPace()
    if (await leases.finish(deployment)) events++
  }
}

/** Like a runner: one claim at a time, for everyone waiting by then. */
function nextClaimed() {
  return new Promise((resolve) => {
    waiting.push(resolve)
    if (!isClaiming) void claim()
  })
}

async function claim() {
  isClaiming = true
  while (waiting.length > 0) {
    await waitForPace()
    const batch = waiting.splice(0, 20)
    const claimed = await leases.claimNext(leaseHolder, batch.length)
    if (claimed.length < batch.length)
      throw new Error('The database does not contain enough queued deployments.')
    events += claimed.length
    for (const [i, deployment] of claimed.entries()) batch[i](deployment)
  }
  isClaiming = false
}

async function waitForPace() {
  const waitMs = (++writeCount * 1_000) / rate - (performance.now() - startedAt)
  if (waitMs > 0) await sleep(waitMs)
}
