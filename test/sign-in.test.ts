import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { CredentialStore } from '../src/auth/credentials/credential-store.ts'
import { FakeGitHubOAuth } from './support/auth/fake-github-oauth.ts'
import { ForgingProvider } from './support/auth/forging-provider.ts'
import { BrowserWindow, launchBrowser, saveScreenshot } from './support/browser.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { OidcServer, type People } from './support/oidc-server.ts'
import { createMigratedDatabase, type TestDatabase } from './support/test-database.ts'
import { findFreePort, TestServer } from './support/test-server.ts'

const PEOPLE: People = {
  alice: ['Platform-Team', 'everybody'],
  dave: ['developers'],
  vera: ['staff'],
  otto: ['staff-of-globex'],
  nobody: ['everybody'],
  CI: ['developers'],
  local: ['developers'],
  // The Kelvin sign, whose lower case is "k".
  kelvin: ['\u212aubernetes'],
  'root (command)': ['developers'],
  ｃｉ: ['developers'],
}
const ROLES =
  'platform-team=admin; developers=deployer:acme,acme-labs; developers=viewer; staff=viewer; kubernetes=admin; staff-of-globex=viewer:globex'
const SESSION = '__Host-shipcast'

let browser: Browser
let database: TestDatabase
let provider: OidcServer
let server: TestServer
/** On the same database and provider, with other settings. */
let otherPort: number
let windows: BrowserWindow[] = []
/** Deployed by alice, in acme and in globex. */
let ofAcme: string
let ofGlobex: string

beforeAll(async () => {
  browser = await launchBrowser()
  database = await createMigratedDatabase()
  const port = await findFreePort()
  otherPort = await findFreePort()
  const redirectUrls = [port, otherPort].map((each) => `http://127.0.0.1:${each}/auth/oidc/callback`)
  provider = new OidcServer(await findFreePort(), redirectUrls, PEOPLE)
  await provider.start()
  server = await TestServer.start({
    port,
    env: {
      ...provider.env,
      ACCESS_ROLES: ROLES,
      DATABASE_URL: database.url,
      SIGN_INS_PER_MINUTE: '1000',
    },
  })
  const alice = await signedIn('alice')
  ofAcme = await deployAs(alice.page, 'acme', 'billing-api')
  ofGlobex = await deployAs(alice.page, 'globex', 'warehouse')
})

afterEach(async () => {
  await Promise.all(windows.map((window) => window.close()))
  windows = []
  await provider.setPeople(PEOPLE)
})

afterAll(async () => {
  await browser.close()
  await server.stop()
  await server.removeData()
  await provider.stop()
  await database.drop()
})

async function open(path = '/', options: BrowserContextOptions = {}): Promise<BrowserWindow> {
  const window = await BrowserWindow.open(browser, server.url + path, options)
  windows.push(window)
  return window
}

async function signedIn(
  name: string,
  path = '/',
  options: BrowserContextOptions = {},
): Promise<BrowserWindow> {
  const window = await open(path, options)
  await signIn(window.page, name)
  await window.waitUntilLive()
  return window
}

/** From the sign-in screen to the provider and on to the next page. */
async function signIn(page: Page, name: string): Promise<void> {
  await page.getByRole('link', { name: 'Sign in with Test ID' }).click()
  await chooseAtProvider(page, name)
}

async function chooseAtProvider(page: Page, name: string): Promise<void> {
  await page.getByRole('button', { name, exact: true }).click()
}

/** In another tab of the same browser. */
async function openTab({ page }: BrowserWindow, path = '/'): Promise<Page> {
  const tab = await page.context().newPage()
  await tab.goto(server.url + path)
  return tab
}

/** Deploys with the session of the page. Resolves to the id once the deployment has succeeded. */
async function deployAs(page: Page, org: string, repo: string): Promise<string> {
  const response = await page.request.post(`${server.url}/graphql`, {
    data: { query: DEPLOY_MUTATION, variables: { input: deployInput({ org, repo }) } },
  })
  const { data } = (await response.json()) as { data: DeployResult }
  await row(page, data.deploy.id).and(page.locator('[data-status=SUCCEEDED]')).waitFor()
  return data.deploy.id
}

function row(page: Page, id: string) {
  return page.locator(`[data-testid=deployment-list-item][data-deployment-id="${id}"]`)
}

async function currentUser(page: Page): Promise<string | null> {
  return page.getByTestId('current-user').locator('span').first().textContent()
}

async function sessionIn(page: Page) {
  return (await page.context().cookies()).find(({ name }) => name === SESSION)
}

async function waitForSignInLink(page: Page): Promise<void> {
  await page.getByRole('link', { name: 'Sign in with Test ID' }).waitFor()
}

/** The URL that the provider redirects to, without following it. */
async function callbackUrl(page: Page, name: string): Promise<string> {
  await page.getByRole('link', { name: 'Sign in with Test ID' }).click()
  await page.getByRole('button', { name, exact: true }).waitFor()
  // Like the button, with the cookies of this browser.
  const pressed = await page.request.post(`${page.url()}?${name}`, { maxRedirects: 0 })
  const resumed = await page.request.get(pressed.headers().location ?? '', { maxRedirects: 0 })
  return resumed.headers().location ?? ''
}

test('a person cannot be mistaken for a service, for local or for a command', async () => {
  const credentials = new CredentialStore(database.database)
  const { secret } = await credentials.create({
    kind: 'token',
    subjectId: 'service:ci',
    name: 'ci',
    grants: [{ role: 'deployer', orgs: ['acme'] }],
    lifetimeMs: 3_600_000,
  })
  const query = '{ me { name kind } }'
  const service = await server.request(query, {}, { authorization: `Bearer ${secret}` })
  expect(service.data.me).toEqual({ name: 'ci', kind: 'SERVICE' })
  for (const name of ['CI', 'ｃｉ', 'local', 'root (command)']) {
    const { page } = await signedIn(name)
    const response = await page.request.post(`${server.url}/graphql`, { data: { query } })
    expect((await response.json()).data.me).toEqual({ name: `${name} (person)`, kind: 'PERSON' })
    const id = await deployAs(page, 'acme', `of-${crypto.randomUUID()}`)
    const deployment = await server.request(
      `{ deployment(id: "${id}") { requestedBy requestedByKind } }`,
      {},
      { authorization: `Bearer ${secret}` },
    )
    expect(deployment.data.deployment).toEqual({ requestedBy: `${name} (person)`, requestedByKind: 'PERSON' })
  }
  const alice = await signedIn('alice')
  const log = await alice.page.request.post(`${server.url}/graphql`, {
    data: { query: '{ auditLog(first: 500) { edges { node { subject subjectId subjectKind } } } }' },
  })
  const { edges } = (await log.json()).data.auditLog as {
    edges: { node: { subject: string; subjectKind: string } }[]
  }
  const kinds = new Map(edges.map(({ node }) => [node.subject, node.subjectKind]))
  expect(kinds.get('CI (person)')).toBe('PERSON')
  expect(kinds.get('alice')).toBe('PERSON')
  expect(kinds.has('CI')).toBe(false)
})

describe('the page offers what the role allows', () => {
  test('to an admin: everything', async () => {
    const window = await open()
    const { page } = window
    await waitForSignInLink(page)
    expect(await page.getByTestId('deployment-list-item').count()).toBe(0)

    await signIn(page, 'alice')

    await window.waitUntilLive()
    expect(await currentUser(page)).toBe('alice admin')
    await row(page, ofGlobex).getByRole('link').click()
    await window.waitForStatus('SUCCEEDED')
    await page.getByText('Requested by').waitFor()
    await window.fillForm('globex', 'handbook')
    await window.clickDeploy()
    await page.getByText('globex/handbook').first().waitFor()
    // The socket uses the session, too: otherwise the page would not be live.
    const unexpected = window.problems.filter(
      (problem) => !problem.includes('401') && !problem.includes(provider.issuer),
    )
    expect(unexpected).toEqual([])
  })

  test('to a deployer: its organizations, and actions on its own deployments', async () => {
    const { page, ...window } = await signedInWith('dave')
    expect(await currentUser(page)).toBe('dave deployer')
    const organization = page.getByLabel('Organization')
    const suggestions = await organization.evaluate((field) =>
      [...((field as unknown as { list: { options: Iterable<{ value: string }> } }).list.options ?? [])].map(
        ({ value }) => value,
      ),
    )
    expect(suggestions).toEqual(['acme', 'acme-labs'])

    await window.fill('globex', 'nothing')
    await window.deploy()
    await page.getByText('Must be an organization that you can deploy to: acme and acme-labs.').waitFor()
    expect(await organization.getAttribute('aria-invalid')).toBe('true')

    const ownId = await deployAs(page, 'acme', 'own-service')
    // Both are in a state in which an admin could cancel or retry them.
    await database.database.query("update deployments set status = 'CANCELLED' where id = any($1)", [
      [ownId, ofAcme],
    ])
    try {
      await page.goto(`${server.url}/#${ownId}`)
      await page.reload()
      await page.getByRole('button', { name: 'Retry' }).waitFor()
      await page.goto(`${server.url}/#${ofAcme}`)
      await page.getByRole('heading', { name: 'acme/billing-api' }).waitFor()
      await row(page, ofAcme).and(page.locator('[data-status=CANCELLED]')).waitFor()
      // All of its events have arrived: a button would be visible.
      await page.locator('[data-testid=status][data-status=SUCCEEDED]').waitFor()
      await page.getByText('Requested by').waitFor()
      expect(await page.getByRole('button', { name: 'Retry' }).count()).toBe(0)
    } finally {
      await database.database.query("update deployments set status = 'SUCCEEDED' where id = any($1)", [
        [ownId, ofAcme],
      ])
    }
  })

  test('to a viewer: viewing only, and the reason', async () => {
    const { page } = await signedIn('vera')
    expect(await currentUser(page)).toBe('vera viewer')
    await row(page, ofAcme).waitFor()
    await page.getByText('View-only access').waitFor()
    expect(await page.getByRole('button', { name: 'Deploy', exact: true }).count()).toBe(0)
    expect(await page.getByLabel('Organization').count()).toBe(0)
  })

  test('to a viewer of one organization: that one', async () => {
    const { page } = await signedIn('otto')
    await row(page, ofGlobex).waitFor()
    expect(await row(page, ofAcme).count()).toBe(0)
    await page.goto(`${server.url}/#${ofAcme}`)
    await page.getByText('you do not have access to it').waitFor()
  })

  async function signedInWith(name: string) {
    const window = await signedIn(name)
    return {
      page: window.page,
      fill: (org: string, repo: string) => window.fillForm(org, repo),
      deploy: () => window.clickDeploy(),
    }
  }
})

test('the session cookie is hidden from scripts, other sites and plain http', async () => {
  const { page } = await signedIn('vera')
  const cookies = await page.context().cookies(server.url)
  const session = cookies.find(({ name }) => name === SESSION)
  expect(session).toMatchObject({ httpOnly: true, secure: true, sameSite: 'Strict', path: '/' })
  // Without a domain, only for this host.
  expect(session?.domain).toBe('127.0.0.1')
  const hours = ((session?.expires ?? 0) * 1000 - Date.now()) / 3_600_000
  expect(hours).toBeGreaterThan(11)
  expect(hours).toBeLessThan(12.1)
  // The cookies of the sign-in are gone.
  expect(cookies.map(({ name }) => name)).toEqual([SESSION])
  expect(await page.evaluate('document.cookie')).toBe('')
})

test('signing in returns to the deployment in view', async () => {
  const window = await open(`/#${ofAcme}`)
  await signIn(window.page, 'vera')
  await window.waitForStatus('SUCCEEDED')
  expect(window.deploymentIdFromUrl()).toBe(ofAcme)
  await window.page.getByRole('heading', { name: 'acme/billing-api' }).waitFor()
})

test.each(['nobody', 'kelvin'])(
  'refuses %s, who has no group with a role, without a session',
  async (name) => {
    const { page } = await open()
    await signIn(page, name)
    await page.getByText(`You are ${name}, but none of your groups has a role here.`).waitFor()
    expect(await sessionIn(page)).toBeUndefined()
    await page.getByRole('link', { name: 'Back to Shipcast' }).click()
    await waitForSignInLink(page)
  },
)

describe('a sign-in is completed once, in the browser that started it', () => {
  const REFUSED =
    'This sign-in was already completed, has expired, or was started in another browser. Sign in again.'

  test('not with another state', async () => {
    const { page } = await open()
    const callback = new URL(await callbackUrl(page, 'alice'))
    callback.searchParams.set('state', 'another')
    expect((await page.goto(callback.href))?.status()).toBe(403)
    await page.getByText(REFUSED).waitFor()
    callback.searchParams.delete('state')
    expect((await page.goto(callback.href))?.status()).toBe(403)
    expect(await sessionIn(page)).toBeUndefined()
  })

  test('not a second time', async () => {
    const { page } = await open()
    const callback = await callbackUrl(page, 'alice')
    await page.goto(callback)
    await page.getByTestId('current-user').waitFor()
    await page.context().clearCookies({ name: SESSION })
    expect((await page.goto(callback))?.status()).toBe(403)
    await page.getByText(REFUSED).waitFor()
    expect(await sessionIn(page)).toBeUndefined()
  })

  test('not in another browser; it stays valid in the first one', async () => {
    const mine = await open()
    const theirs = await open()
    const callback = await callbackUrl(mine.page, 'alice')
    expect((await theirs.page.goto(callback))?.status()).toBe(403)
    await theirs.page.getByText(REFUSED).waitFor()
    expect(await sessionIn(theirs.page)).toBeUndefined()
    await mine.page.goto(callback)
    await mine.page.getByTestId('current-user').waitFor()
  })

  test('not with another code', async () => {
    const { page } = await open()
    const callback = new URL(await callbackUrl(page, 'alice'))
    callback.searchParams.set('code', 'made-up')
    expect((await page.goto(callback.href))?.status()).toBe(403)
    await page.getByText('Test ID sent an invalid response. Sign in again.').waitFor()
    expect(await sessionIn(page)).toBeUndefined()
  })

  test('not with the response of another provider', async () => {
    const { page } = await open()
    const callback = new URL(await callbackUrl(page, 'alice'))
    callback.searchParams.set('iss', 'https://id.example.com')
    expect((await page.goto(callback.href))?.status()).toBe(403)
    expect(await sessionIn(page)).toBeUndefined()
  })
})

describe('a session that ends', () => {
  test('by expiring is noticed by the open page, which removes its contents', async () => {
    const { page } = await signedIn('vera')
    await row(page, ofAcme).getByRole('link').click()
    await page.getByRole('heading', { name: 'acme/billing-api' }).waitFor()

    await database.database.query(
      "update access_credentials set expires_at = clock_timestamp() where name = 'vera'",
      [],
    )

    await page.getByText('Your session has ended.').waitFor()
    expect(await page.locator('body').innerText()).not.toMatch(/billing-api|warehouse|vera/)
    expect(await page.title()).toBe('Sign in · Shipcast')
    await page.getByRole('link', { name: 'Sign in with Test ID' }).click()
    await page.getByRole('heading', { name: 'acme/billing-api' }).waitFor()
  })

  test('by signing out ends in every tab, and its secret is invalid', async () => {
    const mine = await signedIn('vera')
    const tab = await openTab(mine)
    await row(tab, ofAcme).waitFor()
    const session = await sessionIn(mine.page)
    // A browser with the same secret is notified through its socket.
    const kept = await open('/', { storageState: { cookies: session ? [session] : [], origins: [] } })
    await kept.waitUntilLive()

    await mine.page.getByRole('button', { name: 'Sign out' }).click()

    await mine.page.getByText('You have signed out.').waitFor()
    for (const page of [mine.page, tab, kept.page]) {
      await waitForSignInLink(page)
      expect(await page.locator('body').innerText()).not.toContain('billing-api')
    }
    expect(await sessionIn(mine.page)).toBeUndefined()
    const headers = { cookie: `${SESSION}=${session?.value}` }
    const { errors } = await server.request('{ me { name } }', {}, headers)
    expect(errors?.[0]?.extensions).toMatchObject({
      code: 'UNAUTHENTICATED',
      signIn: [{ name: 'Test ID', url: '/auth/oidc' }],
    })
  })
})

test('two concurrent sign-ins in two tabs both succeed', async () => {
  const first = await open()
  const second = await openTab(first)
  for (const page of [first.page, second]) {
    await page.getByRole('link', { name: 'Sign in with Test ID' }).click()
    await page.getByRole('button', { name: 'vera', exact: true }).waitFor()
  }
  await chooseAtProvider(first.page, 'vera')
  await first.waitUntilLive()
  await chooseAtProvider(second, 'vera')
  for (const page of [first.page, second]) await row(page, ofAcme).waitFor()

  await second.getByRole('button', { name: 'Sign out' }).click()
  for (const page of [first.page, second]) await waitForSignInLink(page)
})

test('a tab that asks to sign in continues after a sign-in in another tab', async () => {
  const first = await open()
  await waitForSignInLink(first.page)
  await signIn(await openTab(first), 'vera')
  await row(first.page, ofAcme).waitFor()
})

test('a role changed at the provider applies to the other tab, too, after the next sign-in', async () => {
  const window = await signedIn('otto')
  await row(window.page, ofGlobex).waitFor()
  await window.page.getByText('View-only access').waitFor()

  await provider.setPeople({ ...PEOPLE, otto: ['developers'] })
  await openTab(window, '/auth/oidc')

  await window.page.getByLabel('Organization').waitFor()
  expect(await currentUser(window.page)).toBe('otto deployer')
  await row(window.page, ofAcme).waitFor()

  await provider.setPeople(PEOPLE)
  await openTab(window, '/auth/oidc')

  await window.page.getByText('View-only access').waitFor()
  await row(window.page, ofAcme).waitFor({ state: 'detached' })
  await row(window.page, ofGlobex).waitFor()
  await window.waitUntilLive()

  // New events match the new role.
  const alice = await signedIn('alice')
  const unseen = await deployAs(alice.page, 'acme', 'unseen')
  const seen = await deployAs(alice.page, 'globex', 'seen')
  await window.waitForListItem(seen, 'SUCCEEDED')
  expect(await row(window.page, unseen).count()).toBe(0)
})

test('a person whom the provider removes from all groups is signed out everywhere', async () => {
  const window = await signedIn('vera')
  await provider.setPeople({ ...PEOPLE, vera: [] })
  const tab = await openTab(window, '/auth/oidc')
  await tab.getByText('none of your groups has a role here').waitFor()
  await window.page.getByText('Your session has ended.').waitFor()
})

test('after another person signs in, no tab shows anything of the previous one', async () => {
  const window = await signedIn('alice')
  await row(window.page, ofAcme).waitFor()
  const session = await sessionIn(window.page)
  await window.page.context().clearCookies({ domain: 'localhost' })

  const tab = await openTab(window, '/auth/oidc')
  await chooseAtProvider(tab, 'otto')

  for (const page of [window.page, tab]) {
    await page.getByTestId('current-user').getByText('otto').waitFor()
    await row(page, ofGlobex).waitFor()
    expect(await row(page, ofAcme).count()).toBe(0)
  }
  // The previous session is invalid.
  const { errors } = await server.request('{ me { name } }', {}, { cookie: `${SESSION}=${session?.value}` })
  expect(errors?.[0]?.extensions.code).toBe('UNAUTHENTICATED')
})

test('an unavailable provider is reported, and used again once it is back', async () => {
  await provider.stop()
  await withServer({}, async ({ url }) => {
    try {
      const window = await openAt(url)
      const { page } = window
      await page.getByRole('link', { name: 'Sign in with Test ID' }).click()
      await page.getByText('Test ID is not responding. Try again soon.').waitFor()
      expect(await page.locator('body').innerText()).not.toMatch(/\n\s+at |TypeError|ECONN/)

      await provider.start()
      await page.goto(url)
      const callback = await callbackUrl(page, 'vera')
      await provider.stop()
      await page.goto(callback)
      await page.getByText('Test ID is not responding. Try again soon.').waitFor()
      expect(await sessionIn(page)).toBeUndefined()

      await provider.start()
      await page.goto(url)
      await signIn(page, 'vera')
      await window.waitUntilLive()
    } finally {
      await provider.stop()
      await provider.start()
    }
  })
})

describe('the page reports what the server refuses', () => {
  test('forbidden actions', async () => {
    const window = await signedIn('dave')
    await window.page.route('**/graphql', async (route) => {
      const sent = route.request().postData() ?? ''
      await route.continue({ postData: sent.replace('"org":"acme"', '"org":"globex"') })
    })
    await window.fillForm('acme', 'not-there')
    await window.clickDeploy()
    await window.page.getByRole('alert').getByText('globex').waitFor()
    expect(await window.page.getByText('not-there').count()).toBe(0)
  })

  test('too many actions, with the time to retry', async () => {
    await withServer({ MUTATIONS_PER_MINUTE: '1' }, async ({ url }) => {
      const window = await openAt(url)
      await signIn(window.page, 'dave')
      await window.waitUntilLive()
      await window.fillForm('acme', 'once')
      await window.clickDeploy()
      await window.waitForStatus('SUCCEEDED')
      await window.fillForm('acme', 'twice')
      await window.clickDeploy()
      await window.page
        .getByRole('alert')
        .getByText(/The limit is 1 mutations per minute. Try again in \d+ s\./)
        .waitFor()
    })
  })

  test('that it could not be reached to sign out', async () => {
    const { page } = await signedIn('vera')
    await page.route('**/auth/sign-out', (route) => route.abort('connectionrefused'), { times: 1 })
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByText('You are still signed in').waitFor()
    await page.getByRole('button', { name: 'Sign out' }).click()
    await waitForSignInLink(page)
  })
})

describe('the playground', () => {
  const run = (page: Page) => page.getByRole('button', { name: /^(execute|run)/i })
  const result = (page: Page, text: string) => page.locator('.result-window').getByText(text).first()

  test('works with the session', async () => {
    const window = await signedIn('otto')
    const page = await openTab(window, '/graphiql')
    await page.getByText('fileCount').first().waitFor()
    await run(page).click()
    await result(page, '"hello-world"').waitFor()
    await subscribeTo(page, ofAcme)
    await result(page, 'NOT_FOUND').waitFor()
    await subscribeTo(page, ofGlobex)
    await result(page, '"SUCCEEDED"').waitFor()
  })

  test('works with a token in its headers, over HTTP and over the socket, and reports a missing one', async () => {
    const { secret } = await new CredentialStore(database.database).create({
      kind: 'token',
      subjectId: 'service:ci',
      name: 'ci',
      grants: [{ role: 'viewer', orgs: ['acme'] }],
      lifetimeMs: 600_000,
    })
    const { page } = await open('/graphiql')
    await page.getByText('fileCount').first().waitFor()
    await run(page).click()
    await result(page, '"UNAUTHENTICATED"').waitFor()
    await subscribeTo(page, ofAcme)
    await result(page, '4401').waitFor()

    await page.getByRole('tab', { name: 'Templates' }).click()
    await typeHeaders(page, { authorization: `Bearer ${secret}` })
    await run(page).click()
    await result(page, '"hello-world"').waitFor()
    await subscribeTo(page, ofAcme, { authorization: `Bearer ${secret}` })
    await result(page, '"SUCCEEDED"').waitFor()
    // The next person at this browser must not find it.
    expect(String(await page.evaluate('JSON.stringify(localStorage)')).includes(secret)).toBe(false)
  })

  async function subscribeTo(page: Page, id: string, headers?: Record<string, string>): Promise<void> {
    await page.getByRole('tab', { name: 'Templates' }).click()
    await page.getByRole('tab', { name: 'OneDeployment', exact: true }).click()
    await type(page, 'Variables', { deploymentId: id })
    if (headers) await typeHeaders(page, headers)
    await run(page).click()
  }

  const typeHeaders = (page: Page, headers: Record<string, string>) => type(page, 'Headers', headers)

  async function type(page: Page, editor: 'Variables' | 'Headers', value: object): Promise<void> {
    await page.getByRole('button', { name: editor, exact: true }).click()
    await page.locator('.graphiql-editor-tool .monaco-editor').locator('visible=true').first().click()
    await page.keyboard.press('Control+A')
    await page.keyboard.insertText(JSON.stringify(value))
    // The editor has closed its socket.
    await page.keyboard.press('Control+Shift+End')
    await page.keyboard.press('Delete')
  }
})

test('people sign in with GitHub, by their organizations and teams', async () => {
  const github = await FakeGitHubOAuth.start(`http://127.0.0.1:${otherPort}/auth/github/callback`)
  github.person = { id: 1, login: 'octo', organizations: ['Acme'], teams: ['Acme/Platform'] }
  const env = {
    GITHUB_OAUTH_CLIENT_ID: github.clientId,
    GITHUB_OAUTH_CLIENT_SECRET: github.clientSecret,
    GITHUB_OAUTH_URL: github.url,
    GITHUB_API_URL: `${github.url}/api/v3`,
    ACCESS_ROLES: 'github:acme=viewer:acme; github:acme/platform=deployer:acme',
  }
  await withServer(env, async ({ url }) => {
    const { page } = await openAt(`${url}/#${ofAcme}`)
    await page.getByRole('link', { name: 'Sign in with Test ID' }).waitFor()
    await page.getByRole('link', { name: 'Sign in with GitHub' }).click()
    await row(page, ofAcme).waitFor()
    expect(await currentUser(page)).toBe('octo deployer')
    expect(await page.getByLabel('Organization').inputValue()).toBe('acme')
    await page.getByRole('heading', { name: 'acme/billing-api' }).waitFor()
    expect(await row(page, ofGlobex).count()).toBe(0)

    github.person = null
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.getByRole('link', { name: 'Sign in with GitHub' }).click()
    await page.getByText('GitHub refused the sign-in (access_denied). Sign in again.').waitFor()
  })
  await github.close()
})

test('a server without a provider states that it requires a token', async () => {
  const withoutPeople = { OIDC_ISSUER: '', OIDC_CLIENT_ID: '', OIDC_CLIENT_SECRET: '', ACCESS_ROLES: '' }
  await withServer({ ...withoutPeople, ACCESS: 'required' }, async ({ url }) => {
    const { page } = await openAt(url)
    await page.getByText('This server accepts access tokens only').waitFor()
    await page.getByRole('link', { name: 'playground' }).waitFor()
    expect(await page.getByText('Sign in with').count()).toBe(0)
  })
})

test('the log contains no secret of a refused sign-in', async () => {
  const forger = await ForgingProvider.start()
  forger.forgery = { alg: 'none', claims: { email: 'mallory@example.com' } }
  const env = { OIDC_ISSUER: forger.issuer, OIDC_CLIENT_SECRET: forger.clientSecret, LOG_LEVEL: 'debug' }
  await withServer(env, async (other) => {
    const redirect = await fetch(`${other.url}/auth/oidc`, { redirect: 'manual' })
    const [cookie = ''] = redirect.headers.getSetCookie()
    const callback = forger.authorize(new URL(redirect.headers.get('location') ?? ''))
    const refused = await fetch(callback, { headers: { cookie }, redirect: 'manual' })
    expect(refused.status).toBe(403)
    expect(await refused.text()).toContain('Test ID sent an invalid response. Sign in again.')
    expect(refused.headers.getSetCookie().join()).not.toContain(`${SESSION}=`)

    expect(other.log).toContain('unsupported JWS')
    expect(other.log).not.toContain('mallory')
    const secrets = [
      forger.clientSecret,
      ...forger.issuedTokens,
      ...callback.searchParams.values(),
      cookie.split(/[=;]/)[1] ?? '',
    ]
    expect(secrets.filter((secret) => other.log.includes(secret))).toEqual([])
  })
  await forger.close()
})

test('repeated forged callbacks are refused, and do not fill the log', async () => {
  await withServer({}, async ({ url }) => {
    const count = async () => {
      const [row] = await database.database.query<{ count: number }>(
        "select count(*)::int from audit_log where action = 'SIGN_IN' and result = 'UNAUTHENTICATED'",
        [],
      )
      return row?.count ?? 0
    }
    const before = await count()
    const statuses: number[] = []
    for (let i = 0; i < 35; i++) {
      statuses.push((await fetch(`${url}/auth/oidc/callback?code=${i}&state=${i}`)).status)
    }
    expect(statuses).toEqual([...Array(30).fill(403), ...Array(5).fill(429)])
    expect((await count()) - before).toBe(5)
  })
})

test('signing in works with the keyboard only', async () => {
  const { page } = await open()
  await waitForSignInLink(page)
  expect(await page.evaluate('document.activeElement.textContent')).toBe('Sign in to Shipcast')
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  await page.getByRole('button', { name: 'vera', exact: true }).press('Enter')
  await row(page, ofAcme).waitFor()
})

test.each(['light', 'dark'] as const)(
  'looks like docs/sign-in-*.png and viewer-*.png, %s',
  async (colorScheme) => {
    const options: BrowserContextOptions = { colorScheme, reducedMotion: 'reduce' }
    const window = await open(`/#${ofAcme}`, options)
    await waitForSignInLink(window.page)
    await saveScreenshot(window.page, `sign-in-${colorScheme}`)
    await signIn(window.page, 'vera')
    await window.waitUntilLive()
    await window.waitForStatus('SUCCEEDED')
    await saveScreenshot(window.page, `viewer-${colorScheme}`)
  },
)

test('fits a narrow screen', async () => {
  const options = { viewport: { width: 360, height: 740 } }
  const { page } = await open('/', options)
  await waitForSignInLink(page)
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360)
  await signIn(page, 'alice')
  await row(page, ofAcme).waitFor()
  expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360)
})

async function withServer(
  env: Record<string, string>,
  run: (other: TestServer) => Promise<void>,
): Promise<void> {
  const other = await TestServer.start({
    port: otherPort,
    env: { ...provider.env, ACCESS_ROLES: ROLES, DATABASE_URL: database.url, ...env },
  })
  try {
    await run(other)
  } finally {
    await other.stop()
    await other.removeData()
  }
}

async function openAt(url: string): Promise<BrowserWindow> {
  const window = await BrowserWindow.open(browser, url)
  windows.push(window)
  return window
}
