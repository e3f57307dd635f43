import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Arrival, Sample } from './fan-out.ts'
import type { Herd } from './herd.ts'
import type { SlowViewer } from './slow-viewer.ts'

/** What one run has measured, or several together. */
export interface Results {
  machine: Record<string, string>
  samples: Sample[]
  arrivals: Arrival[]
  slow: SlowViewer | undefined
  herd: Herd | undefined
  failures: string[]
}

/** Results of earlier runs, in the order in which they were made. */
export function readResults(folder: string): Results[] {
  mkdirSync(folder, { recursive: true })
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'))
  return files.sort().map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Results)
}

export function keepResults(folder: string, results: Results): void {
  const name = `${new Date().toISOString().replaceAll(':', '')}.json`
  writeFileSync(join(folder, name), JSON.stringify(results))
}

/** Everything that was measured; of what is measured once, the last time. */
export function together(all: readonly Results[]): Results {
  return {
    machine: {
      ...all.at(-1)?.machine,
      'Load before': all.map(({ machine }) => machine['Load before']).join(', '),
    },
    samples: all.flatMap(({ samples }) => samples.map(withNumbers)),
    arrivals: all.flatMap(({ arrivals }) => arrivals),
    slow: all.findLast(({ slow }) => slow)?.slow,
    herd: all.findLast(({ herd }) => herd)?.herd,
    failures: all.flatMap(({ failures }) => failures),
  }
}

/** JSON has no NaN, which stands for what could not be measured. */
function withNumbers(sample: Sample): Sample {
  const latencies = (['lastP50', 'lastP99', 'anyP50', 'anyP99'] as const).map((name) => [
    name,
    sample[name] ?? Number.NaN,
  ])
  return { ...sample, ...Object.fromEntries(latencies) }
}
