import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { Config, ConfigError } from './config.ts'

let folder: string
let keyFile: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shipcast-config-'))
  keyFile = join(folder, 'app.pem')
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  })
  await writeFile(keyFile, privateKey)
  await writeFile(join(folder, 'no.pem'), 'not a key: hunter2')
})

afterAll(() => rm(folder, { recursive: true, force: true }))

const TOKEN = 'github_pat_11SECRET'

test('TEMPLATES_DIR defaults to the bundled templates; other folders are relative to the working directory', () => {
  const before = process.cwd()
  process.chdir(folder)
  try {
    expect(new Config({})).toMatchObject({
      templatesDir: join(before, 'templates'),
      dataDir: join(folder, 'data'),
    })
    expect(new Config({ TEMPLATES_DIR: './ours' }).templatesDir).toBe(join(folder, 'ours'))
  } finally {
    process.chdir(before)
  }
})

test.each([
  [{ HOST: 'LOCALHOST', PORT: '80', ACCESS: 'required' }, 'http://localhost'],
  [{ HOST: '::', PORT: '80', ACCESS: 'required' }, 'http://127.0.0.1'],
  [{ HOST: '0:0:0:0:0:0:0:1', ACCESS: 'required' }, 'http://[::1]:3000'],
])('PUBLIC_URL defaults to the origin of %j', (env, publicUrl) => {
  expect(new Config(env).publicUrl).toBe(publicUrl)
})

test.each(['999.1.1.1', '1:2', '99999999999'])('refuses HOST=%s, which no URL can contain', (HOST) => {
  expect(thrownBy({ HOST })).toEqual(
    new ConfigError(
      `HOST must be a host name or an address without a port, for example HOST=127.0.0.1. It is "${HOST}".`,
    ),
  )
})

test('reports all problems at once, each with its variable and a good value', () => {
  const error = thrownBy({
    HOST: 'no host',
    PORT: '0',
    LOG_LEVEL: 'loud',
    DATABASE_URL: 'mysql://user:hunter2@localhost/shipcast',
    FORGE: 'github',
    OIDC_CLIENT_ID: 'shipcast',
    SESSION_HOURS: '1.5',
  })
  expect((error as Error).message.split('\n')).toEqual([
    'HOST must be a host name or an address without a port, for example HOST=127.0.0.1. It is "no host".',
    'PORT must be a whole number from 1 to 65535, for example PORT=3000. It is "0".',
    'LOG_LEVEL must be one of error, warn, info, debug, for example LOG_LEVEL=info. It is "loud".',
    expect.stringMatching(/^DATABASE_URL must be .*, for example DATABASE_URL=postgres:[^"]*$/),
    expect.stringMatching(/^FORGE=github requires a credential: GITHUB_TOKEN=/),
    expect.stringMatching(/^OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET belong together: /),
    'SESSION_HOURS must be a whole number from 1 to 720, for example SESSION_HOURS=12. It is "1.5".',
  ])
})

test('an empty variable counts as unset', () => {
  expect(new Config({ PORT: '', HOST: ' ', GITHUB_TOKEN: '' })).toEqual(new Config({}))
})

describe('GitHub', () => {
  test('is the forge if a credential is set', () => {
    expect(new Config({})).toMatchObject({ forge: 'local', github: undefined })
    expect(new Config({ GITHUB_TOKEN: TOKEN })).toMatchObject({
      forge: 'github',
      github: {
        apiUrl: 'https://api.github.com',
        credential: { kind: 'token', token: TOKEN },
        writeSpacingMs: 1_000,
        enterprise: undefined,
      },
    })
    expect(new Config({ GITHUB_TOKEN: TOKEN, FORGE: 'local' })).toMatchObject({
      forge: 'local',
      github: undefined,
    })
    expect(
      new Config({ GITHUB_APP_ID: '4711', GITHUB_APP_PRIVATE_KEY_FILE: keyFile }).github?.credential,
    ).toMatchObject({
      kind: 'app',
      appId: '4711',
    })
  })

  test('can be an Enterprise Server below a path, without spacing between writes', () => {
    const env = {
      GITHUB_TOKEN: TOKEN,
      GITHUB_API_URL: 'https://git.example.com/api/v3/',
      GITHUB_WRITE_SPACING_MS: '0',
    }
    expect(new Config(env).github).toMatchObject({
      apiUrl: 'https://git.example.com/api/v3',
      writeSpacingMs: 0,
    })
  })

  test('is reached through the proxy that the usual variables name', () => {
    const env = { GITHUB_TOKEN: TOKEN, https_proxy: 'http://proxy.example.com:3128', NO_PROXY: 'localhost' }
    expect(new Config(env).github?.proxies).toEqual({
      httpProxy: undefined,
      httpsProxy: 'http://proxy.example.com:3128',
      noProxy: 'localhost',
    })
  })

  test.each<[string, Record<string, string>, RegExp]>([
    [
      'no credential',
      { FORGE: 'github' },
      /GITHUB_TOKEN=.*GITHUB_APP_ID=123456 with GITHUB_APP_PRIVATE_KEY_FILE=/,
    ],
    ['two credentials', { GITHUB_TOKEN: TOKEN, GITHUB_APP_ID: '1' }, /are alternatives/],
    ['an App without a key', { GITHUB_APP_ID: '1' }, /GITHUB_APP_ID requires GITHUB_APP_PRIVATE_KEY_FILE/],
    [
      'a key file that does not exist',
      { GITHUB_APP_ID: '1', GITHUB_APP_PRIVATE_KEY_FILE: '/no/such' },
      /GITHUB_APP_PRIVATE_KEY_FILE cannot be read \(ENOENT\)/,
    ],
    [
      'a token with spaces',
      { GITHUB_TOKEN: 'ghp_secret and more' },
      /GITHUB_TOKEN must be a personal access token/,
    ],
    [
      "the address of GitHub's website",
      { GITHUB_TOKEN: TOKEN, GITHUB_API_URL: 'https://github.com' },
      /GitHub's API, not of its website.*https:\/\/api\.github\.com/,
    ],
    [
      'an API without TLS',
      { GITHUB_TOKEN: TOKEN, GITHUB_API_URL: 'http://git.example.com/api/v3' },
      /GITHUB_API_URL must begin with https:/,
    ],
    [
      'an API with a password',
      { GITHUB_TOKEN: TOKEN, GITHUB_API_URL: 'https://me:hunter2@git.example.com' },
      /GITHUB_API_URL must be the https:/,
    ],
    [
      'no write spacing on github.com',
      { GITHUB_TOKEN: TOKEN, GITHUB_WRITE_SPACING_MS: '0' },
      /GITHUB_WRITE_SPACING_MS must be 1000 or more/,
    ],
    [
      'an enterprise without a billing address',
      { GITHUB_TOKEN: TOKEN, GITHUB_ENTERPRISE: 'acme' },
      /GITHUB_ENTERPRISE requires GITHUB_BILLING_EMAIL/,
    ],
    ['an invalid proxy', { GITHUB_TOKEN: TOKEN, HTTPS_PROXY: 'proxy:hunter2' }, /HTTPS_PROXY must be/],
  ])('rejects %s, names the variable, and shows no secret', (_what, env, message) => {
    const error = thrownBy(env)
    expect(error).toBeInstanceOf(ConfigError)
    expect((error as Error).message).toMatch(message)
    expect((error as Error).message).not.toMatch(/hunter2|SECRET|ghp_secret/)
  })

  test('rejects a file without a key, and does not show its contents', () => {
    const error = thrownBy({ GITHUB_APP_ID: '1', GITHUB_APP_PRIVATE_KEY_FILE: join(folder, 'no.pem') })
    expect((error as Error).message).toMatch(/GITHUB_APP_PRIVATE_KEY_FILE contains no RSA private key/)
    expect((error as Error).message).not.toContain('hunter2')
  })
})

describe('roles', () => {
  const OIDC = { OIDC_ISSUER: 'https://id.example.com', OIDC_CLIENT_ID: 'a', OIDC_CLIENT_SECRET: 'b' }
  const GITHUB = { GITHUB_OAUTH_CLIENT_ID: 'a', GITHUB_OAUTH_CLIENT_SECRET: 'b' }
  const names = (env: Record<string, string>) => [...new Config(env).access.grantsByGroup.keys()]

  test('belong to one provider: anyone can create an organization on GitHub that is named like a group', () => {
    const roles = 'Platform=admin; staff=viewer'
    expect(names({ ...OIDC, ACCESS_ROLES: roles })).toEqual(['oidc:platform', 'oidc:staff'])
    expect(names({ ...GITHUB, ACCESS_ROLES: roles })).toEqual(['github:platform', 'github:staff'])
    const error = thrownBy({ ...OIDC, ...GITHUB, ACCESS_ROLES: roles })
    expect((error as Error).message).toMatch(/^ACCESS_ROLES has the group "platform", .*oidc:platform/)
    const qualified = { ...OIDC, ...GITHUB, ACCESS_ROLES: 'OIDC:platform=admin; github:acme/platform=viewer' }
    expect(names(qualified)).toEqual(['oidc:platform', 'github:acme/platform'])
  })
})

function thrownBy(env: Record<string, string>): unknown {
  try {
    new Config(env)
  } catch (error) {
    return error
  }
  throw new Error('The settings were accepted.')
}
