import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { AppModule } from './app.module.ts'
import { Config, ConfigError } from './config/config.ts'
import { DatabaseUrlError } from './database/database-url.ts'
import { DatabaseUnavailableError } from './database/errors.ts'
import { IncompatibleSchemaError } from './database/migrate.ts'
import { configureHttp, limitShutdownTime } from './http/http.ts'
import { createLogger } from './runtime/logging.ts'
import { BrokenTemplateError } from './templates/load-template.ts'

const STOP_SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

// A fault that a person can fix is a sentence, without a stack.
const USER_FACING_ERRORS = [
  ConfigError,
  DatabaseUrlError,
  DatabaseUnavailableError,
  IncompatibleSchemaError,
  BrokenTemplateError,
]

/** Starts the server with the settings of the environment. Where that cannot be, ends the process and says why. */
export async function start(): Promise<void> {
  try {
    await startServer(new Config(process.env))
  } catch (error) {
    // What is our fault is shown with its stack.
    console.error(isUserFacing(error) ? error.message : error)
    process.exit(1)
  }
}

async function startServer(config: Config): Promise<void> {
  const app = await NestFactory.create<NestExpressApplication>(AppModule.forRoot(config), {
    logger: createLogger(config.logLevel),
    bodyParser: false,
    abortOnError: false,
  })
  app.enableShutdownHooks([...STOP_SIGNALS])
  limitShutdownTime(app.getHttpServer(), STOP_SIGNALS, config)
  configureHttp(app, config)
  await app.listen(config.port, config.host).catch((error: unknown) => {
    throw isListenError(error) ? toListenError(config, error) : error
  })
  console.log(describeAccess(config))
  console.log(`Shipcast is ready: ${config.publicUrl}`)
}

function describeAccess({ access: { isRequired, oidc, github } }: Config): string {
  if (!isRequired) return 'Everyone on this machine has access, as an admin. No one else can reach it.'
  const ways = [oidc?.name, github && 'GitHub'].filter((name) => name !== undefined)
  return `Access requires a token (npm run token)${ways.map((name) => ` or signing in with ${name}`).join('')}.`
}

function isUserFacing(error: unknown): error is Error {
  return USER_FACING_ERRORS.some((kind) => error instanceof kind)
}

function isListenError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}

function toListenError({ host, port }: Config, error: NodeJS.ErrnoException): ConfigError {
  const sentences: Record<string, string> = {
    EADDRINUSE: `PORT ${port} is in use. Set another, for example PORT=${port + 1}, or end what uses it.`,
    EACCES: `PORT ${port} may not be used by this account. Set one from 1024 on, for example PORT=3000.`,
  }
  const sentence =
    sentences[error.code ?? ''] ??
    `HOST ${host} is not an address of this machine (${error.message}). Set one that is, for example HOST=127.0.0.1.`
  return new ConfigError(sentence, { cause: error })
}
