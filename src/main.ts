import './runtime/node-version.ts'

// Only now: an older Node cannot even load what the program is made of.
const { start } = await import('./start.ts')
await start()
