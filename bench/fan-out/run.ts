import { writeFileSync } from 'node:fs'
import { measureFanOut } from './fan-out.ts'
import { measureHerd } from './herd.ts'
import { describeMachine } from './machine.ts'
import {
  isWhole,
  resultsFolder,
  rounds,
  scenarios,
  servers,
  VERY_MANY_VIEWERS,
  viewerCounts,
} from './options.ts'
import { report } from './report.ts'
import { keepResults, type Results, readResults, together } from './results.ts'
import { measureSlowViewer } from './slow-viewer.ts'

/*
 * `npm run bench:fanout`: what it costs to tell many viewers of an event, beside `ws` alone and beside what others use.
 * Parts of it: VIEWERS=1000 ROUNDS=1 SERVERS=ws,shipcast SCENARIOS=burst npm run bench:fanout (see options.ts).
 * A whole run, which takes a quarter of an hour, writes bench/RESULTS.md. So do runs in parts, for all that has been
 * kept in one folder: RESULTS_FOLDER=/tmp/fan-out VIEWERS=5000 ROUNDS=1 npm run bench:fanout, and so on.
 */

const RESULTS = new URL('../RESULTS.md', import.meta.url)

const started = Date.now()
const results: Results = {
  machine: describeMachine(),
  samples: [],
  arrivals: [],
  slow: undefined,
  herd: undefined,
  failures: [],
}

const before = resultsFolder === undefined ? [] : readResults(resultsFolder)

if (scenarios.some((scenario) => scenario !== 'slow' && scenario !== 'herd')) {
  for (let round = 0; round < rounds; round++) {
    for (const viewers of viewerCounts) {
      if (viewers >= VERY_MANY_VIEWERS && round > 0) continue
      for (const server of rotated(servers, before.length + round)) {
        await attempt(`round ${round + 1}, ${viewers} viewers, ${server}`, async () => {
          const { arrival, samples } = await measureFanOut(server, viewers, scenarios)
          results.arrivals.push(arrival)
          results.samples.push(...samples)
        })
      }
    }
  }
}
if (servers.includes('shipcast')) {
  if (scenarios.includes('slow')) {
    await attempt('a viewer that stops reading', async () => {
      results.slow = await measureSlowViewer()
    })
  }
  if (scenarios.includes('herd')) {
    await attempt('all viewers cut off at once', async () => {
      results.herd = await measureHerd()
      for (const [text, count] of Object.entries(results.herd.whichStatements)) {
        console.log(`${count} × ${text.replace(/\s+/g, ' ').trim().slice(0, 100)}`)
      }
    })
  }
}

if (resultsFolder !== undefined) keepResults(resultsFolder, results)
const text = report(together([...before, results]))
console.log(`\n${text}`)
if (isWhole || resultsFolder !== undefined) writeFileSync(RESULTS, text)
const isFaulty = results.samples.some(({ fault }) => fault) || results.slow?.faults || results.herd?.fault
process.exitCode = isFaulty || results.failures.length > 0 ? 1 : 0

/** What fails is told at the end, and does not keep the rest from being measured. */
async function attempt(what: string, work: () => Promise<void>): Promise<void> {
  const begun = Date.now()
  let outcome = 'done'
  try {
    await work()
  } catch (error) {
    outcome = error instanceof Error ? error.message : String(error)
    results.failures.push(`${what}: ${outcome.split('\n')[0]}`)
  }
  console.log(`${seconds(Date.now() - started)} ${what}: ${outcome} (${seconds(Date.now() - begun)})`)
}

function rotated<Item>(items: readonly Item[], by: number): Item[] {
  const start = by % items.length
  return [...items.slice(start), ...items.slice(0, start)]
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`
}
