import { execFileSync } from 'node:child_process'

export const SERVERS = {
  ws: 'ws alone',
  nestjs: 'NestJS + Apollo',
  yoga: 'GraphQL Yoga',
  mercurius: 'Mercurius',
  shipcast: 'Shipcast',
} as const
export type ServerName = keyof typeof SERVERS

export const SCENARIOS = ['connect', 'spaced', 'burst', 'distinct', 'steady', 'slow', 'herd'] as const
export type Scenario = (typeof SCENARIOS)[number]

/** A server needs a file descriptor for each viewer, and so do the viewers; some more are for everything else. */
const SPARE_FILES = 500
const openFiles =
  Number(execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' })) || Number.POSITIVE_INFINITY

export const mostViewers = openFiles - SPARE_FILES
export const servers = choices('SERVERS', Object.keys(SERVERS) as ServerName[])
export const scenarios = choices('SCENARIOS', SCENARIOS)
export const viewerCounts = numbers('VIEWERS', [100, 1000, 5000, 10_000]).filter(
  (count) => count <= mostViewers,
)
export const rounds = number('ROUNDS', 3)
/** From here on one round is enough. */
export const VERY_MANY_VIEWERS = 10_000

/** The one who stops reading. */
export const slow = {
  // A thousand viewers would be a million messages a second: more than one core sends to anybody.
  viewers: number('SLOW_VIEWERS', 100),
  eventsPerSecond: number('SLOW_EVENTS_PER_SECOND', 1000),
  /** Emitted before anything is measured: the server keeps recent events in bounded memory, which is then full. */
  fillEvents: number('SLOW_FILL_EVENTS', 100_000),
  beforeSeconds: number('SLOW_BEFORE_SECONDS', 20),
  pauseSeconds: number('SLOW_PAUSE_SECONDS', 60),
}
/** Those who are cut off at once. */
export const herdViewers = Math.min(number('HERD_VIEWERS', 5000), mostViewers)

/** Where results are kept, so that parts of a run make up one report. */
export const resultsFolder = process.env.RESULTS_FOLDER

/** Whether everything is measured, so that the result may be kept. */
export const isWhole = !['SERVERS', 'SCENARIOS', 'VIEWERS', 'ROUNDS'].some((name) => process.env[name])

function choices<const T extends string>(name: string, all: readonly T[]): readonly T[] {
  const wanted = process.env[name]?.split(',')
  if (!wanted) return all
  const unknown = wanted.find((each) => !all.some((known) => known === each))
  if (unknown !== undefined) throw new Error(`${name} may name ${all.join(', ')}, not "${unknown}".`)
  return all.filter((each) => wanted.includes(each))
}

function number(name: string, otherwise: number): number {
  return numbers(name, [otherwise])[0]!
}

function numbers(name: string, otherwise: readonly number[]): readonly number[] {
  const value = process.env[name]
  if (!value) return otherwise
  const read = value.split(',').map(Number)
  if (!read.every((each) => Number.isInteger(each) && each > 0)) {
    throw new Error(`${name} must be whole numbers with commas in between, not "${value}".`)
  }
  return read
}
