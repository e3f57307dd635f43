import 'reflect-metadata'
import { ConsoleLogger, type LogLevel as NestLogLevel } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { AppModule } from './app.module.ts'
import type { Config, LogLevel } from './config/config.ts'

/** Opens the database and wires the modules; `listen` then starts the server. */
export function createApp(config: Config): Promise<NestExpressApplication> {
  return NestFactory.create<NestExpressApplication>(AppModule.forRoot(config), {
    logger: createLogger(config.logLevel),
    // HttpModule reads bodies, within limits.
    bodyParser: false,
    abortOnError: false,
  })
}

/** Text on a terminal, JSON lines otherwise; the fields of an entry are beside its message. */
function createLogger(level: LogLevel): ConsoleLogger {
  const levels: NestLogLevel[] = ['fatal', 'error', 'warn', 'log', 'debug']
  const upTo = { error: 2, warn: 3, info: 4, debug: 5 }[level]
  const isTerminal = process.stdout.isTTY === true
  return new QuietStartLogger({ logLevels: levels.slice(0, upTo), json: !isTerminal, flattenParams: true })
}

/** Moves Nest's start messages, one for every module and route, to the level `debug`. */
class QuietStartLogger extends ConsoleLogger {
  override log(message: unknown, ...rest: unknown[]): void {
    if (rest.length === 1 && NEST_START_CONTEXTS.has(rest[0])) this.debug(message, ...rest)
    else super.log(message, ...rest)
  }

  /** `main.ts` reports once why the server cannot start. */
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
