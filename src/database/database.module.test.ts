import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { isDeepStrictEqual } from 'node:util'
import { describe, expect, test } from '@jest/globals'
import { Injectable, Module, type OnModuleDestroy } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { AUTHORITY_FILE, readCertificate } from '../../test/support/github/tls/certificate.ts'
import { waitUntil } from '../../test/support/processes.ts'
import {
  createMigratedDatabase,
  createTestDatabase,
  testConnection,
  urlOf,
} from '../../test/support/test-database.ts'
import { PubSubModule } from '../pubsub/pubsub.module.ts'
import { DatabaseModule } from './database.module.ts'
import { Database } from './database.ts'

test('modules can use a migrated database until the last of them has shut down', async () => {
  const { database, url, drop } = await createTestDatabase()

  @Injectable()
  class Writer implements OnModuleDestroy {
    constructor(readonly database: Database) {}
    async onModuleDestroy(): Promise<void> {
      await this.database.query('update log set head = 7')
    }
  }
  @Module({ imports: [DatabaseModule.forRoot({ url, dataDir: '' })], providers: [Writer] })
  class TestModule {}

  const others = `select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`
  const own = await database.query(others)
  const app = await NestFactory.createApplicationContext(TestModule, { logger: false })
  await app.close()
  expect(await database.query('select head from log')).toEqual([{ head: 7 }])
  // A server process ends a moment after its connection.
  await waitUntil(
    async () => isDeepStrictEqual(await database.query(others), own),
    'the connections are closed',
  )
  await drop()
})

describe('reports an unusable database and what to do', () => {
  const opening = (url: string) => {
    @Module({ imports: [DatabaseModule.forRoot({ url, dataDir: '' }), PubSubModule] })
    class TestModule {}
    return NestFactory.createApplicationContext(TestModule, { logger: false, abortOnError: false })
  }

  /** Runs a server that hands a client's request for TLS to `upgrade`. */
  async function withServer(upgrade: (socket: Socket) => void, use: (port: number) => Promise<void>) {
    const sockets = new Set<Socket>()
    const server = createServer((socket) => {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.once('data', () => upgrade(socket))
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      await use((server.address() as AddressInfo).port)
    } finally {
      for (const socket of sockets) socket.destroy()
      server.close()
    }
  }

  test('with an untrusted certificate, one for another name, or none', async () => {
    const certificate = await readCertificate()
    const encrypt = (socket: Socket) => {
      socket.write('S')
      new TLSSocket(socket, { isServer: true, ...certificate }).on('error', () => undefined)
    }
    await withServer(encrypt, async (port) => {
      const url = (host: string) => `postgres://u@${host}:${port}/x?sslmode=verify-full`
      await expect(opening(url('127.0.0.1'))).rejects.toThrow(/sslrootcert=/)
      await expect(opening(`${url('localhost')}&sslrootcert=${AUTHORITY_FILE}`)).rejects.toThrow(
        /certificate is for another host name/,
      )
    })
    await withServer(
      (socket) => socket.write('N'),
      (port) =>
        expect(opening(`postgres://u@127.0.0.1:${port}/x?sslmode=require`)).rejects.toThrow(
          /Turn on ssl on the server/,
        ),
    )
  })

  test.each([
    ['database', { database: 'absent' }, /Create that database/],
    ['password', { password: 'wrong' }, /Check user and password/],
  ])('with a wrong %s', async (_, wrong, sentence) => {
    await expect(opening(urlOf({ ...testConnection(), ...wrong }))).rejects.toThrow(sentence)
  })

  test('whose role cannot create tables, or cannot use those of another role', async () => {
    const { database, url, drop } = await createMigratedDatabase()
    const role = `test_${crypto.randomUUID().slice(0, 8)}`
    const { password } = testConnection()
    await database.query(`create role ${role} login password '${password}'`)
    const address = new URL(url)
    address.searchParams.set('user', role)
    try {
      await expect(opening(address.href)).rejects.toThrow(
        `Run: grant create on schema "public" to "${role}";`,
      )
      await database.query(`grant create on schema public to ${role}`)
      await expect(opening(address.href)).rejects.toThrow(/schema_migrations.* use the role that created/)
    } finally {
      await database.query(`drop owned by ${role}; drop role ${role}`)
      await drop()
    }
  })

  test('with an invalid URL, before other modules use it', async () => {
    const lines: unknown[] = []
    const log = (...line: unknown[]) => lines.push(line)
    @Module({
      imports: [
        DatabaseModule.forRoot({ url: 'postgres://u@127.0.0.1/x?nonsense=1', dataDir: '' }),
        PubSubModule,
      ],
    })
    class TestModule {}
    const logger = { log: () => undefined, warn: log, error: log }
    const starting = NestFactory.createApplicationContext(TestModule, { logger, abortOnError: false })
    await expect(starting).rejects.toThrow('"nonsense"')
    expect(JSON.stringify(lines)).not.toContain('TypeError')
    expect(lines.filter((line) => JSON.stringify(line).includes('LISTEN connection lost'))).toEqual([])
  })
})
