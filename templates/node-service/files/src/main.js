import { readFileSync } from 'node:fs'
import { createService } from './service.js'

const GRACE_MS = 10_000

const { config } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
const port = Number(process.env.PORT ?? config.port)
const host = process.env.HOST

const service = createService()

service.server.on('error', (error) => {
  console.error(`Cannot listen on port ${port}: ${error.message}. Set PORT to a free one.`)
  process.exitCode = 1
})
service.server.listen({ port, host }, () => {
  console.log(`Listening on port ${service.server.address().port}`)
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, async () => {
    console.log(`${signal}: finishing`)
    await service.stop(GRACE_MS)
    console.log('Stopped')
  })
}
