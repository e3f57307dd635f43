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

test('finds our templates wherever the server is started from; other folders are relative to that place', () => {
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

describe('GitHub', () => {
  test('is the forge where a credential is set, and only then', () => {
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

  test('may be an Enterprise Server below a path, without a pause between writes', () => {
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

  test('is reached by the proxy that other programs use', () => {
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
    ['two credentials', { GITHUB_TOKEN: TOKEN, GITHUB_APP_ID: '1' }, /two ways to say who/],
    ['an App without a key', { GITHUB_APP_ID: '1' }, /GITHUB_APP_ID needs GITHUB_APP_PRIVATE_KEY_FILE/],
    [
      'a key file that is not there',
      { GITHUB_APP_ID: '1', GITHUB_APP_PRIVATE_KEY_FILE: '/no/such' },
      /GITHUB_APP_PRIVATE_KEY_FILE cannot be read \(ENOENT\)/,
    ],
    [
      'a token with spaces',
      { GITHUB_TOKEN: 'ghp_secret and more' },
      /GITHUB_TOKEN must be a personal access token/,
    ],
    [
      'the pages instead of the API',
      { GITHUB_TOKEN: TOKEN, GITHUB_API_URL: 'https://github.com' },
      /not of its API.*https:\/\/api\.github\.com/,
    ],
    [
      'an API in the clear',
      { GITHUB_TOKEN: TOKEN, GITHUB_API_URL: 'http://git.example.com/api/v3' },
      /GITHUB_API_URL must begin with https:/,
    ],
    [
      'an API with a password',
      { GITHUB_TOKEN: TOKEN, GITHUB_API_URL: 'https://me:hunter2@git.example.com' },
      /GITHUB_API_URL must be the https:/,
    ],
    [
      'no pause on github.com',
      { GITHUB_TOKEN: TOKEN, GITHUB_WRITE_SPACING_MS: '0' },
      /GITHUB_WRITE_SPACING_MS must be 1000 or more/,
    ],
    [
      'an enterprise without an address for bills',
      { GITHUB_TOKEN: TOKEN, GITHUB_ENTERPRISE: 'acme' },
      /GITHUB_ENTERPRISE needs GITHUB_BILLING_EMAIL/,
    ],
    ['a proxy that is none', { GITHUB_TOKEN: TOKEN, HTTPS_PROXY: 'proxy:hunter2' }, /HTTPS_PROXY must be/],
  ])('refuses %s, by the name of the setting, and shows no secret', (_what, env, message) => {
    const error = thrownBy(env)
    expect(error).toBeInstanceOf(ConfigError)
    expect((error as Error).message).toMatch(message)
    expect((error as Error).message).not.toMatch(/hunter2|SECRET|ghp_secret/)
  })

  test('refuses a file that holds no key, and does not show what it holds', () => {
    const error = thrownBy({ GITHUB_APP_ID: '1', GITHUB_APP_PRIVATE_KEY_FILE: join(folder, 'no.pem') })
    expect((error as Error).message).toMatch(/GITHUB_APP_PRIVATE_KEY_FILE holds no RSA private key/)
    expect((error as Error).message).not.toContain('hunter2')
  })
})

describe('roles', () => {
  const OIDC = { OIDC_ISSUER: 'https://id.example.com', OIDC_CLIENT_ID: 'a', OIDC_CLIENT_SECRET: 'b' }
  const GITHUB = { GITHUB_OAUTH_CLIENT_ID: 'a', GITHUB_OAUTH_CLIENT_SECRET: 'b' }
  const names = (env: Record<string, string>) => [...new Config(env).access.grantsByGroup.keys()]

  test('are those of one provider: anybody can found an organization on GitHub of the name of another group', () => {
    const roles = 'Platform=admin; staff=viewer'
    expect(names({ ...OIDC, ACCESS_ROLES: roles })).toEqual(['oidc:platform', 'oidc:staff'])
    expect(names({ ...GITHUB, ACCESS_ROLES: roles })).toEqual(['github:platform', 'github:staff'])
    const error = thrownBy({ ...OIDC, ...GITHUB, ACCESS_ROLES: roles })
    expect((error as Error).message).toMatch(/^ACCESS_ROLES has the group "platform", .*oidc:platform/)
    const said = { ...OIDC, ...GITHUB, ACCESS_ROLES: 'OIDC:platform=admin; github:acme/platform=viewer' }
    expect(names(said)).toEqual(['oidc:platform', 'github:acme/platform'])
  })
})

function thrownBy(env: Record<string, string>): unknown {
  try {
    new Config(env)
  } catch (error) {
    return error
  }
  throw new Error('It was accepted.')
}
