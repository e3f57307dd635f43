import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import pg from 'pg'
import { createDataFolder } from '../../test/support/data-folder.ts'
import { DatabaseUrlError, parseDatabaseUrl } from './database-url.ts'

const ADDRESS = 'postgres://someone:s3cret@db.example:6543/shipcast'

function sslOf(url: string): unknown {
  return Reflect.get(new pg.Client(parseDatabaseUrl(url).config), 'ssl')
}

describe('parseDatabaseUrl', () => {
  test('returns address, user, pool size and connection timeout', () => {
    expect(parseDatabaseUrl(ADDRESS)).toMatchObject({ poolSize: 10, connectTimeoutMs: 10_000 })
    const settings = parseDatabaseUrl(`${ADDRESS}?pool_max=25&connect_timeout=3&application_name=staging`)
    expect(settings).toMatchObject({ poolSize: 25, connectTimeoutMs: 3_000 })
    const client = new pg.Client(settings.config)
    expect(client).toMatchObject({
      host: 'db.example',
      port: 6543,
      user: 'someone',
      password: 's3cret',
      database: 'shipcast',
    })
    expect(Reflect.get(client, 'connectionParameters')).toMatchObject({ application_name: 'staging' })
  })

  test('encrypts according to sslmode, as libpq does', async () => {
    const folder = await createDataFolder()
    const authority = join(folder.path, 'ca.pem')
    await writeFile(authority, 'a certificate')
    expect(sslOf(`${ADDRESS}?sslmode=disable`)).toBe(false)
    expect(sslOf(`${ADDRESS}?sslmode=require`)).toMatchObject({ rejectUnauthorized: false })
    expect(sslOf(`${ADDRESS}?sslmode=verify-full`)).toEqual({})
    expect(sslOf(`${ADDRESS}?sslmode=verify-full&sslrootcert=${authority}`)).toEqual({ ca: 'a certificate' })
    expect(sslOf(`${ADDRESS}?sslmode=verify-ca&sslrootcert=${authority}`)).toMatchObject({
      ca: 'a certificate',
    })
    await folder.remove()
  })

  test.each([
    ['?pool_max=0', /pool_max=0; it must be a whole number from 2 to 1000, for example pool_max=10/],
    ['?connect_timeout=soon', /connect_timeout=soon/],
    ['?ssl_mode=require', /unknown parameter "ssl_mode"\. Known parameters: .*sslmode/],
    ['?sslmode=prefer', /sslmode=prefer; it must be one of disable, require/],
    ['?sslmode=verify-ca', /without sslrootcert/],
    ['?sslmode=verify-full&sslrootcert=/no/such/file.pem', /cannot be read: \/no\/such\/file\.pem/],
  ])('rejects %s; names the variable but not the password', (rest, sentence) => {
    const read = () => parseDatabaseUrl(`${ADDRESS}${rest}`, 'DATABASE_LISTEN_URL')
    expect(read).toThrow(DatabaseUrlError)
    expect(read).toThrow(sentence)
    expect(read).toThrow(/^DATABASE_LISTEN_URL /)
    expect(read).not.toThrow(/s3cret/)
  })

  test.each(['postgres://someone:s3cret@db:port/x', 'postgres://someone:s3?cret@db/x'])(
    'asks for percent-encoding if %s is not a URL, and repeats no part of it',
    (url) => {
      expect(() => parseDatabaseUrl(url)).toThrow(/is not a URL; a password .* must be percent-encoded/)
      expect(() => parseDatabaseUrl(url)).not.toThrow(/s3|cret/)
    },
  )
})
