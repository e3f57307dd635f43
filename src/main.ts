import './runtime/node-version.ts'
import type { INestApplication } from '@nestjs/common'

// Imported only after the check: an older Node cannot parse the rest of the program.
const { createApp } = await import('./create-app.ts')
const { Config, ConfigError } = await import('./config/config.ts')
const { StartupError } = await import('./errors.ts')
const { limitShutdownTime } = await import('./http/shutdown.ts')

const STOP_SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

try {
  const config = new Config(process.env)
  const app = await createApp(config)
  app.enableShutdownHooks([...STOP_SIGNALS])
  limitShutdownTime(app.getHttpServer(), STOP_SIGNALS, config)
  await listen(app, config)
  console.log(describeAccess(config))
  console.log(`Shipcast is ready: ${config.publicUrl}`)
} catch (error) {
  // A bug shows its stack; a problem that a person can fix does not.
  console.error(error instanceof StartupError ? error.message : error)
  process.exit(1)
}

type Settings = InstanceType<typeof Config>

async function listen(app: INestApplication, { host, port }: Settings): Promise<void> {
  try {
    await app.listen(port, host)
  } catch (error) {
    if (!isSystemError(error)) throw error
    throw new ConfigError(explainListenError(host, port, error), { cause: error })
  }
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error
}

function explainListenError(host: string, port: number, { code, message }: NodeJS.ErrnoException): string {
  switch (code) {
    case 'EADDRINUSE':
      return `PORT ${port} is in use. Set another, for example PORT=${port + 1}, or stop the process that uses it.`
    case 'EACCES':
      return `This account is not allowed to bind PORT ${port}. Set a port of 1024 or higher, for example PORT=3000.`
    default:
      return `HOST ${host} is not an address of this machine (${message}). Set one that is, for example HOST=127.0.0.1.`
  }
}

function describeAccess({ access: { isRequired, oidc, github } }: Settings): string {
  if (!isRequired) {
    return 'No sign-in required: anyone on this machine is an admin. Not reachable from other machines.'
  }
  const providers = [oidc?.name, github && 'GitHub'].filter((name) => name !== undefined)
  return `Access requires a token (npm run token)${providers.map((name) => ` or signing in with ${name}`).join('')}.`
}
