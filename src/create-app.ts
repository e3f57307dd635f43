import 'reflect-metadata'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { AppModule } from './app.module.ts'
import type { Config } from './config/config.ts'
import { createLogger } from './config/logging.ts'

/** Opens the database and wires the modules; `listen` then starts the server. */
export function createApp(config: Config): Promise<NestExpressApplication> {
  return NestFactory.create<NestExpressApplication>(AppModule.forRoot(config), {
    logger: createLogger(config.logLevel),
    // HttpModule reads bodies, within limits.
    bodyParser: false,
    abortOnError: false,
  })
}
