import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { AppModule } from './app.module.ts'
import { Config, ConfigError } from './config.ts'
import { BrokenTemplate } from './deployments/contents/template-folder.ts'
import { configureHttp } from './http.ts'
import { createLogger } from './logging.ts'

try {
  await start(new Config(process.env))
} catch (error) {
  // What a person can mend is said in a sentence; what is our fault, with its stack.
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
  return error instanceof ConfigError || error instanceof BrokenTemplate || isPortTaken
}
