import { expect, test } from '@jest/globals'
import { Injectable, Module, type OnModuleDestroy } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { createTestDatabase } from '../../test/support/test-database.ts'
import { DatabaseModule } from './database.module.ts'
import { Database } from './database.ts'

test('modules have a migrated database, until the last of them has ended', async () => {
  const { database, url, drop } = await createTestDatabase()
  const migrations = [{ version: 1, name: 'words', sql: 'create table words (word text)' }]

  @Injectable()
  class Writer implements OnModuleDestroy {
    constructor(readonly database: Database) {}
    async onModuleDestroy(): Promise<void> {
      await this.database.query('insert into words values ($1)', ['bye'])
    }
  }
  @Module({ imports: [DatabaseModule.forRoot({ url, dataDir: '', migrations })], providers: [Writer] })
  class TestModule {}

  const app = await NestFactory.createApplicationContext(TestModule, { logger: false })
  await app.close()
  expect(await database.query('select word from words')).toEqual([{ word: 'bye' }])
  const others = `select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`
  expect(await database.query(others)).toEqual([])
  await drop()
})
