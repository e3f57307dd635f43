import { ConsoleLogger, type LogLevel as NestLogLevel } from '@nestjs/common'
import type { LogLevel } from '../config/config.ts'

/** Text on a terminal, otherwise JSON with the fields beside the message. */
export function createLogger(level: LogLevel): ConsoleLogger {
  const levels: NestLogLevel[] = ['fatal', 'error', 'warn', 'log', 'debug']
  const upTo = { error: 2, warn: 3, info: 4, debug: 5 }[level]
  const isTerminal = process.stdout.isTTY === true
  return new QuietStartLogger({ logLevels: levels.slice(0, upTo), json: !isTerminal, flattenParams: true })
}

/** Nest logs each module and route at start: debug information. */
class QuietStartLogger extends ConsoleLogger {
  override log(message: unknown, ...rest: unknown[]): void {
    if (rest.length === 1 && NEST_START_CONTEXTS.has(rest[0])) this.debug(message, ...rest)
    else super.log(message, ...rest)
  }

  /** `start.ts` reports why a start failed. */
  override error(message: unknown, ...rest: unknown[]): void {
    if (!NEST_START_FAILURES.has(rest.at(-1))) super.error(message, ...rest)
  }
}

const NEST_START_FAILURES: ReadonlySet<unknown> = new Set(['ExceptionHandler', 'NestApplication'])

const NEST_START_CONTEXTS: ReadonlySet<unknown> = new Set([
  'NestFactory',
  'InstanceLoader',
  'RoutesResolver',
  'RouterExplorer',
  'GraphQLModule',
  'NestApplication',
])
