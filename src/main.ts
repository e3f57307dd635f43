import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { AppModule } from './app.module.ts'
import { Config, ConfigError } from './config.ts'
import { DatabaseUnavailable } from './database/database-unavailable.ts'
import { DatabaseUrlError } from './database/database-url.ts'
import { SchemaTooNew } from './database/migrations.ts'
import { BrokenTemplate } from './deployments/contents/template-folder.ts'
import { configureHttp } from './http.ts'
import { createLogger } from './logging.ts'

// What a person can mend is said in a sentence.
const FOR_PEOPLE = [ConfigError, DatabaseUrlError, DatabaseUnavailable, SchemaTooNew, BrokenTemplate]

try {
  await start(new Config(process.env))
} catch (error) {
  // What is our fault is shown with its stack.
  console.error(isForPeople(error) ? error.message : error)
  process.exit(1)
}

async function start(config: Config): Promise<void> {
  const app = await NestFactory.create<NestExpressApplication>(AppModule.forRoot(config), {
    logger: createLogger(config.logLevel),
    bodyParser: false,
    abortOnError: false,
  })
  app.enableShutdownHooks(['SIGTERM', 'SIGINT', 'SIGHUP'])
  configureHttp(app, config)
  await app.listen(config.port, config.host)
  console.log(`Shipcast is ready: ${config.publicUrl}`)
}

function isForPeople(error: unknown): error is Error {
  const isPortTaken = error instanceof Error && 'syscall' in error && error.syscall === 'listen'
  return isPortTaken || FOR_PEOPLE.some((kind) => error instanceof kind)
}
