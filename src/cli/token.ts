import '../runtime/node-version.ts'
import 'reflect-metadata'

const { runTokenCommand } = await import('./token-command.ts')
const hasSucceeded = await runTokenCommand(process.argv.slice(2))
process.exitCode = hasSucceeded ? 0 : 1
