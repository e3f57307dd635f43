import { setTimeout as sleep } from 'node:timers/promises'
import { Database } from '../dist/database/database.js'
import { LeaseStore } from '../dist/deployments/runner/lease-store.js'
import { EventLog } from '../dist/events/event-log.js'
import { PostgresPubSub } from '../dist/pubsub/postgres-pubsub.js'

/*
 * What a runner's writes cost, without a forge: `node append-events.mjs <seconds> <deployments at once>
 * [events per second]`, as fast as it can by default, on DATABASE_URL, which has deployments that are QUEUED, or that "bench" runs. Each is claimed, if need be, and taken through
 * its steps; the hints go out as in a server. Prints {"events": …, "seconds": …}.
 */
const [seconds, atOnce, rate = Number.POSITIVE_INFINITY] = process.argv.slice(2).map(Number)
const database = await Database.open({ url: process.env.DATABASE_URL, dataDir: '' })
const pubSub = new PostgresPubSub(database)
await pubSub.start()
const leases = new LeaseStore(database, new EventLog(database, pubSub))
const owner = { name: 'bench', leaseMs: 600_000 }
const repository = { id: '1', url: 'https://forge.test/a/b', cloneUrl: 'https://forge.test/a/b.git' }
const results = [
  { step: 'CREATE_ORG' },
  { step: 'CREATE_REPO', repository },
  { step: 'PUSH_CONTENTS', commitSha: '0'.repeat(40) },
]

const held = await database.query(
  `select id, epoch, leased_by as owner, step from deployments where status = 'RUNNING' and leased_by = 'bench'`,
)
let events = 0
let started = 0
let isClaiming = false
const places = []
const startedAt = performance.now()
const isOver = () => performance.now() - startedAt > seconds * 1_000
await Promise.all(Array.from({ length: atOnce }, run))
console.log(JSON.stringify({ events, seconds: (performance.now() - startedAt) / 1_000 }))
await pubSub.close()
await database.close()

async function run() {
  while (!isOver()) {
    let work = held.pop() ?? (await nextClaimed())
    for (const result of results) {
      await itsTime()
      if (await leases.advance(work, result)) events++
      work = { ...work, step: result.step }
    }
    await itsTime()
    if (await leases.finish(work)) events++
  }
}

/** As a runner does: one claim at a time, for all places that are free by then. */
function nextClaimed() {
  return new Promise((resolve) => {
    places.push(resolve)
    if (!isClaiming) void claim()
  })
}

async function claim() {
  isClaiming = true
  while (places.length > 0) {
    await itsTime()
    const free = places.splice(0, 20)
    const found = await leases.claimNext(owner, free.length)
    if (found.length < free.length) throw new Error('Too few deployments are queued for this bench.')
    events += found.length
    for (const [i, work] of found.entries()) free[i](work)
  }
  isClaiming = false
}

async function itsTime() {
  const waitMs = (++started * 1_000) / rate - (performance.now() - startedAt)
  if (waitMs > 0) await sleep(waitMs)
}
