import '../runtime/node-version.ts'
import 'reflect-metadata'

const { runTokenCommand } = await import('./token-command.ts')
const isDone = await runTokenCommand(process.argv.slice(2))
process.exitCode = isDone ? 0 : 1
