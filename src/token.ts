import 'reflect-metadata'
import { runTokenCommand } from './auth/token-command.ts'

const isDone = await runTokenCommand(process.argv.slice(2))
process.exitCode = isDone ? 0 : 1
