import { writeFileSync } from 'node:fs'
import { measureHerd } from './herd.ts'
import { describeMachine } from './machine.ts'
import { measureFanOut } from './measure-fan-out.ts'
import {
  isCompleteRun,
  resultsFolder,
  rounds,
  SINGLE_ROUND_VIEWERS,
  scenarios,
  servers,
  viewerCounts,
} from './options.ts'
import { report } from './report.ts'
import { mergeResults, type Results, readResults, saveResults } from './results.ts'
import { measureSlowViewer } from './slow-viewer.ts'

/*
 * `npm run bench:fanout`: the cost of sending an event to many viewers, compared with `ws` alone and with
 * other servers. Partial runs: VIEWERS=1000 ROUNDS=1 SERVERS=ws,shipcast SCENARIOS=burst npm run bench:fanout
 * (see options.ts). A complete run takes a quarter of an hour and writes bench/RESULTS.md. Partial runs with
 * the same RESULTS_FOLDER write it from everything stored there: RESULTS_FOLDER=/tmp/fan-out VIEWERS=5000
 * ROUNDS=1 npm run bench:fanout.
 */

const RESULTS = new URL('../RESULTS.md', import.meta.url)

const startedAt = Date.now()
const results: Results = {
  machine: describeMachine(),
  samples: [],
  connectCosts: [],
  slow: undefined,
  herd: undefined,
  failures: [],
}

const earlierResults = resultsFolder === undefined ? [] : readResults(resultsFolder)

if (scenarios.some((scenario) => scenario !== 'slow' && scenario !== 'herd')) {
  for (let round = 0; round < rounds; round++) {
    for (const viewers of viewerCounts) {
      if (viewers >= SINGLE_ROUND_VIEWERS && round > 0) continue
      for (const server of rotated(servers, earlierResults.length + round)) {
        await attempt(`round ${round + 1}, ${viewers} viewers, ${server}`, async () => {
          const { connectCost, samples } = await measureFanOut(server, viewers, scenarios)
          results.connectCosts.push(connectCost)
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
      for (const [text, count] of Object.entries(results.herd.statementCounts)) {
        console.log(`${count} × ${text.replace(/\s+/g, ' ').trim().slice(0, 100)}`)
      }
    })
  }
}

if (resultsFolder !== undefined) saveResults(resultsFolder, results)
const text = report(mergeResults([...earlierResults, results]))
console.log(`\n${text}`)
if (isCompleteRun || resultsFolder !== undefined) writeFileSync(RESULTS, text)
const isFaulty = results.samples.some(({ fault }) => fault) || results.slow?.faults || results.herd?.fault
process.exitCode = isFaulty || results.failures.length > 0 ? 1 : 0

/** A failure is reported at the end and does not stop the other measurements. */
async function attempt(name: string, work: () => Promise<void>): Promise<void> {
  const attemptStartedAt = Date.now()
  let outcome = 'done'
  try {
    await work()
  } catch (error) {
    outcome = error instanceof Error ? error.message : String(error)
    results.failures.push(`${name}: ${outcome.split('\n')[0]}`)
  }
  console.log(
    `${seconds(Date.now() - startedAt)} ${name}: ${outcome} (${seconds(Date.now() - attemptStartedAt)})`,
  )
}

function rotated<Item>(items: readonly Item[], by: number): Item[] {
  const start = by % items.length
  return [...items.slice(start), ...items.slice(0, start)]
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`
}
