import assert from 'node:assert/strict'
import { once } from 'node:events'
import { afterEach, beforeEach, test } from 'node:test'
import { routes } from '../src/routes.js'
import { createService } from '../src/service.js'

let service
let address

beforeEach(async () => {
  service = createService()
  service.server.listen(0, '127.0.0.1')
  await once(service.server, 'listening')
  address = `http://127.0.0.1:${service.server.address().port}`
})

afterEach(() => service.stop(0))

test('greets by name', async () => {
  const response = await fetch(`${address}/hello?name=Ada`)
  assert.equal(response.status, 200)
  assert.deepEqual(await response.json(), { message: 'Hello, Ada!' })
})

test('greets the world when no name is given', async () => {
  const response = await fetch(`${address}/hello`)
  assert.deepEqual(await response.json(), { message: 'Hello, world!' })
})

test('says that it is healthy', async () => {
  const response = await fetch(`${address}/health`)
  assert.equal(response.status, 200)
  assert.deepEqual(await response.json(), { status: 'ok' })
})

test('answers 404 where there is nothing', async () => {
  for (const path of ['/', '/nothing', '/toString', '//']) {
    const response = await fetch(address + path)
    assert.equal(response.status, 404, path)
    await response.arrayBuffer()
  }
})

test('answers 405 to a method that a route does not have', async () => {
  const response = await fetch(`${address}/hello`, { method: 'DELETE' })
  assert.equal(response.status, 405)
  await response.arrayBuffer()
})

test('answers 500 when a route fails, and goes on', async (t) => {
  t.mock.method(console, 'error', () => {})
  routes['/broken'] = {
    GET: () => {
      throw new Error('broken on purpose')
    },
  }
  const response = await fetch(`${address}/broken`)
  assert.equal(response.status, 500)
  await response.arrayBuffer()
  delete routes['/broken']
  assert.equal((await fetch(`${address}/health`)).status, 200)
})

test('finishes the request that is under way when it is stopped', async () => {
  const { promise: begun, resolve: begin } = withResolvers()
  const { promise: finished, resolve: finish } = withResolvers()
  routes['/slow'] = {
    GET: async () => {
      begin()
      await finished
      return { status: 200, body: { message: 'late but whole' } }
    },
  }
  const request = fetch(`${address}/slow`)
  await begun
  const stopped = service.stop(60_000)
  finish()
  const response = await request
  assert.deepEqual(await response.json(), { message: 'late but whole' })
  await stopped
  delete routes['/slow']
  await assert.rejects(fetch(`${address}/health`))
})

/** `Promise.withResolvers`, which Node 20 does not have. */
function withResolvers() {
  let resolve
  const promise = new Promise((r) => {
    resolve = r
  })
  return { promise, resolve }
}
