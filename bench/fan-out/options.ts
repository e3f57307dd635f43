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

/** The server and the viewers each need a file descriptor per viewer; these are for everything else. */
const RESERVED_FILE_DESCRIPTORS = 500
const maxOpenFiles =
  Number(execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' })) || Number.POSITIVE_INFINITY

const maxViewers = maxOpenFiles - RESERVED_FILE_DESCRIPTORS
export const servers = readChoices('SERVERS', Object.keys(SERVERS) as ServerName[])
export const scenarios = readChoices('SCENARIOS', SCENARIOS)
export const viewerCounts = readNumbers('VIEWERS', [100, 1000, 5000, 10_000]).filter(
  (count) => count <= maxViewers,
)
export const rounds = readNumber('ROUNDS', 3)
/** From this number of viewers on, one round is enough. */
export const SINGLE_ROUND_VIEWERS = 10_000

export const slowViewerOptions = {
  // A thousand viewers would be a million messages a second: more than one core can send.
  viewers: readNumber('SLOW_VIEWERS', 100),
  eventsPerSecond: readNumber('SLOW_EVENTS_PER_SECOND', 1000),
  /** Emitted before the measurement, to fill the server's memory of recent events. */
  fillEvents: readNumber('SLOW_FILL_EVENTS', 100_000),
  beforeSeconds: readNumber('SLOW_BEFORE_SECONDS', 20),
  pauseSeconds: readNumber('SLOW_PAUSE_SECONDS', 60),
}
export const herdViewers = Math.min(readNumber('HERD_VIEWERS', 5000), maxViewers)

/** Stores the results of partial runs, which make up one report. */
export const resultsFolder = process.env.RESULTS_FOLDER

/** Only a complete run replaces RESULTS.md. */
export const isCompleteRun = !['SERVERS', 'SCENARIOS', 'VIEWERS', 'ROUNDS'].some((name) => process.env[name])

function readChoices<const T extends string>(name: string, all: readonly T[]): readonly T[] {
  const chosen = process.env[name]?.split(',')
  if (!chosen) return all
  const unknown = chosen.find((each) => !all.some((known) => known === each))
  if (unknown !== undefined)
    throw new Error(`${name} must be a list of ${all.join(', ')}; "${unknown}" is not one of them.`)
  return all.filter((each) => chosen.includes(each))
}

function readNumber(name: string, defaultValue: number): number {
  return readNumbers(name, [defaultValue])[0]!
}

function readNumbers(name: string, defaultValues: readonly number[]): readonly number[] {
  const value = process.env[name]
  if (!value) return defaultValues
  const numbers = value.split(',').map(Number)
  if (!numbers.every((each) => Number.isInteger(each) && each > 0)) {
    throw new Error(`${name} must be positive integers separated by commas, not "${value}".`)
  }
  return numbers
}
