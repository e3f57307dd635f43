import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { HerdResult } from './herd.ts'
import type { ConnectCost, Sample } from './measure-fan-out.ts'
import type { SlowViewerResult } from './slow-viewer.ts'

/** The results of one run, or of several merged. */
export interface Results {
  machine: Record<string, string>
  samples: Sample[]
  connectCosts: ConnectCost[]
  slow: SlowViewerResult | undefined
  herd: HerdResult | undefined
  failures: string[]
}

/** Results of earlier runs, oldest first. */
export function readResults(folder: string): Results[] {
  mkdirSync(folder, { recursive: true })
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'))
  return files.sort().map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Results)
}

export function saveResults(folder: string, results: Results): void {
  const name = `${new Date().toISOString().replaceAll(':', '')}.json`
  writeFileSync(join(folder, name), JSON.stringify(results))
}

/** All measurements; of those made once per run, the latest. */
export function mergeResults(all: readonly Results[]): Results {
  return {
    machine: {
      ...all.at(-1)?.machine,
      'Load before': all.map(({ machine }) => machine['Load before']).join(', '),
    },
    samples: all.flatMap(({ samples }) => samples.map(restoreNaN)),
    connectCosts: all.flatMap(({ connectCosts }) => connectCosts),
    slow: all.findLast(({ slow }) => slow)?.slow,
    herd: all.findLast(({ herd }) => herd)?.herd,
    failures: all.flatMap(({ failures }) => failures),
  }
}

/** NaN means that a value could not be measured; JSON stores it as null. */
function restoreNaN(sample: Sample): Sample {
  const latencies = (['lastP50', 'lastP99', 'anyP50', 'anyP99'] as const).map((name) => [
    name,
    sample[name] ?? Number.NaN,
  ])
  return { ...sample, ...Object.fromEntries(latencies) }
}
