import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, open as openFile, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Browser, BrowserContextOptions, Route } from 'playwright-core'
import { BrowserWindow, findScripts, launchBrowser, saveScreenshot } from './support/browser.ts'
import { git } from './support/github/git.ts'
import { DEPLOY_MUTATION, type DeployResult, deployInput } from './support/inputs.ts'
import { TestServer } from './support/test-server.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const ALL_TEXTS = ['Ready!', 'Creating org', 'Creating repo', 'Pushing contents', 'Done!']

let browser: Browser
let server: TestServer
let folder: string
let windows: BrowserWindow[] = []
let held: HeldOrganization[] = []
let names = 0

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shipcast-page-'))
  browser = await launchBrowser()
  server = await TestServer.start({ env: { DEPLOY_CONCURRENCY: '1' } })
})

afterEach(async () => {
  await Promise.all(held.map((organization) => organization.release()))
  held = []
  await Promise.all(windows.map((window) => window.close()))
  windows = []
})

afterAll(async () => {
  await browser.close()
  await server.stop()
  await server.removeData()
  await rm(folder, { recursive: true, force: true })
})

async function open(path = '/', options: BrowserContextOptions = {}): Promise<BrowserWindow> {
  const window = await BrowserWindow.open(browser, server.url + path, options)
  windows.push(window)
  return window
}

/** Realistic, unique names, for the screenshots. */
function newName(): string {
  const kinds = ['billing-api', 'homework', 'data-pipeline', 'mobile-app', 'handbook', 'search-service']
  return `${kinds[names % kinds.length]}-${++names}`
}

interface HeldOrganization {
  release(): Promise<void>
}

/**
 * Holds every deployment to this organization at its first step until it is released, at the latest after the
 * test: the local forge reads the organization's record from a pipe without content.
 */
async function holdOrganization(login: string): Promise<HeldOrganization> {
  const organization = join(server.dataDir, 'forge', login)
  const pipe = join(organization, 'organization.json')
  await mkdir(organization, { recursive: true })
  await promisify(execFile)('mkfifo', [pipe])
  let isHeld = true
  const release = async () => {
    if (!isHeld) return
    isHeld = false
    // Opened for reading and writing, it does not wait for the other side.
    const opened = await openFile(pipe, 'r+')
    await rm(pipe)
    await opened.write(JSON.stringify({ id: 'held', login, createdAt: new Date().toISOString() }))
    await opened.close()
  }
  held.push({ release })
  return { release }
}

test('everyone sees each step of a deployment as it happens, whoever started it', async () => {
  const mine = await open()
  const theirs = await open()
  for (const window of [mine, theirs]) {
    await window.waitUntilLive()
    await window.waitForStatus('ready')
  }

  await mine.fillForm('acme', newName())
  await mine.page.getByRole('button', { name: 'Deploy', exact: true }).dblclick()

  for (const window of [mine, theirs]) {
    await window.waitForStatus('SUCCEEDED')
    expect(await window.statusTexts()).toEqual(ALL_TEXTS)
    await window.waitForListItem(mine.deploymentIdFromUrl(), 'SUCCEEDED')
    // Two clicks, one deployment.
    expect(await window.page.getByTestId('deployment-list-item').count()).toBe(1)
    const states = window.page.locator('[data-testid=step][data-state=done]')
    expect(await states.count()).toBe(5)
    expect(await states.nth(1).textContent()).toMatch(/^Create organizationdone[\d.]+ m?s$/)
    expect(window.problems).toEqual([])
  }
  const clone = join(folder, 'first')
  await git('/', 'clone', '-q', await mine.cloneUrl(), clone)
  expect((await stat(join(clone, 'README.md'))).isFile()).toBe(true)
})

test('a deployment started by another client appears and progresses in every window', async () => {
  const windowsOfOthers = [await open(), await open()]
  await Promise.all(windowsOfOthers.map((window) => window.waitUntilLive()))

  const { data } = await server.request<DeployResult>(DEPLOY_MUTATION, {
    input: deployInput({ org: 'acme', repo: newName() }),
  })

  for (const window of windowsOfOthers) {
    await window.waitForStatus('SUCCEEDED')
    expect(await window.statusTexts()).toEqual(ALL_TEXTS)
    await window.waitForListItem(data.deploy.id, 'SUCCEEDED')
  }
})

test('continues after a reload, and after the server is killed', async () => {
  const mine = await open()
  const theirs = await open()
  await Promise.all([mine.waitUntilLive(), theirs.waitUntilLive()])
  const org = await holdOrganization('platform')
  await mine.fillForm('platform', newName())
  await mine.clickDeploy()
  await mine.waitForStatus('RUNNING')
  const id = mine.deploymentIdFromUrl()

  await mine.page.reload()
  await mine.waitUntilLive()
  await mine.waitForStatus('RUNNING')
  expect(await mine.statusTexts()).toEqual(['Creating org'])

  await server.kill()
  for (const window of [mine, theirs]) {
    await window.page.locator('[data-testid=connection][data-state=reconnecting]').waitFor()
    await window.page.getByText('Showing data as of').waitFor()
  }
  await server.start()
  await Promise.all([mine.waitUntilLive(), theirs.waitUntilLive()])
  await org.release()

  for (const window of [mine, theirs]) {
    await window.waitForStatus('SUCCEEDED')
    await window.waitForListItem(id, 'SUCCEEDED')
  }
  expect(await mine.statusTexts()).toEqual(ALL_TEXTS.slice(1))
  expect(await theirs.statusTexts()).toEqual(ALL_TEXTS)
})

test('links to the conflicting deployment, cancels it, and resumes it with Retry', async () => {
  const window = await open()
  const { page } = window
  await window.waitUntilLive()
  // There is one slot: while this deployment is held, the next one is queued.
  const org = await holdOrganization('informatics-101')
  await server.request(DEPLOY_MUTATION, { input: deployInput({ org: 'informatics-101', repo: newName() }) })
  await window.fillForm('acme', newName())
  await window.clickDeploy()
  await window.waitForStatus('QUEUED')
  const id = window.deploymentIdFromUrl()

  await window.clickDeploy()
  await page.getByText('Another deployment').waitFor()
  const link = page.getByRole('link', { name: 'Show that deployment' })
  expect(await link.getAttribute('href')).toBe(`#${id}`)

  await page.getByRole('button', { name: 'Cancel' }).click()
  await window.waitForStatus('CANCELLED')
  await page.getByRole('button', { name: 'Retry' }).click()
  await window.waitForStatus('QUEUED')
  await org.release()
  await window.waitForStatus('SUCCEEDED')
  await page.getByText('attempt 2').waitFor()
})

test('a submission whose response is lost can be repeated and creates only one deployment', async () => {
  const window = await open()
  await window.waitUntilLive()
  const repo = newName()
  await window.fillForm('acme', repo)
  const loseResponse = async (route: Route) => {
    await route.fetch()
    await route.abort('connectionreset')
  }
  await window.page.route('**/graphql', loseResponse, { times: 1 })
  await window.clickDeploy()
  await window.page.getByText('could not be reached').waitFor()

  await window.page.getByRole('button', { name: 'Try again', exact: true }).click()

  await window.waitForStatus('SUCCEEDED')
  await window.waitForListItem(window.deploymentIdFromUrl(), 'SUCCEEDED')
  expect(
    await window.page
      .getByTestId('deployment-list-item')
      .filter({ hasText: `acme/${repo}` })
      .count(),
  ).toBe(1)
})

test('the details show the warnings of a deployment', async () => {
  const files = Array.from({ length: 23 }, (_, n) => ({ path: `${n}/aux.c`, content: '' }))
  const request = deployInput({ org: 'acme', repo: newName(), contents: { files } })
  const { data } = await server.request<DeployResult>(DEPLOY_MUTATION, { input: request })
  const window = await open(`/#${data.deploy.id}`)
  await window.waitForStatus('SUCCEEDED')
  const warnings = window.page.getByRole('list', { name: 'Warnings' }).getByRole('listitem')
  await warnings.first().waitFor()
  expect(await warnings.count()).toBe(21)
  expect(await warnings.first().textContent()).toBe(
    '"0/aux.c" cannot be checked out on Windows, where it is a device name.',
  )
  expect(await warnings.last().textContent()).toBe('And 3 more.')
})

describe('contents from this computer', () => {
  let contents: string

  beforeAll(async () => {
    contents = join(folder, 'contents')
    for (const name of ['.git', 'docs']) await mkdir(join(contents, name), { recursive: true })
    await writeFile(join(contents, '.git', 'config'), 'not to be deployed')
    await writeFile(join(contents, '.DS_Store'), 'not to be deployed')
    await writeFile(join(contents, 'README.md'), '\uFEFF# Grüße\r\n')
    await writeFile(join(contents, 'docs', 'empty'), '')
    await writeFile(join(contents, 'docs', 'pixel.bin'), Buffer.from([0, 255, 254, 10, 13]))
    await writeFile(join(contents, 'run.sh'), '#!/bin/sh\necho hello\n')
  })

  const methods = {
    picked: async (window: BrowserWindow) => {
      await window.page.getByText('This computer').click()
      const chooser = window.page.waitForEvent('filechooser')
      await window.page.getByRole('button', { name: 'Choose a folder' }).click()
      await (await chooser).setFiles(contents)
    },
    dropped: (window: BrowserWindow) => window.drop(contents),
  }

  test.each(Object.entries(methods))('a folder that is %s is deployed unchanged', async (method, choose) => {
    const window = await open()
    await window.waitUntilLive()
    await choose(window)
    await window.page.getByText(/^4 files/).waitFor()
    await window.page.getByText('2 ignored').waitFor()
    await window.fillForm('acme', newName())
    await window.clickDeploy()
    await window.waitForStatus('SUCCEEDED')

    const clone = join(folder, method)
    await git('/', 'clone', '-q', await window.cloneUrl(), clone)
    for (const path of ['README.md', 'docs/empty', 'docs/pixel.bin', 'run.sh']) {
      expect(await readFile(join(clone, path))).toEqual(await readFile(join(contents, path)))
    }
    expect((await git('/', '-C', clone, 'ls-files', '-s')).split('\n').filter(Boolean)).toHaveLength(4)
    expect(await git('/', '-C', clone, 'ls-files', '-s', 'run.sh')).toMatch(/^100755 /)
    expect(window.problems).toEqual([])
  })
})

test('shows errors beside their fields, and focuses the first one', async () => {
  const window = await open()
  const { page } = window
  await window.waitUntilLive()
  await window.clickDeploy()
  await page.getByText('Must not be empty.').nth(1).waitFor()

  await window.fillForm('-acme-', '..')
  await page.getByText('More options').click()
  await page.getByLabel('Branch').fill('a..b')
  await window.clickDeploy()

  for (const [label, text] of [
    ['Organization', 'hyphen'],
    ['Repository', '..'],
    ['Branch', '..'],
  ] as const) {
    const field = page.getByLabel(label)
    await page.locator('input[aria-invalid=true]').nth(2).waitFor()
    const ids = (await field.getAttribute('aria-describedby'))?.split(' ') ?? []
    const described = await Promise.all(ids.map((id) => page.locator(`[id="${id}"]`).textContent()))
    expect(described.join(' ')).toContain(text)
  }
  expect(await page.getByLabel('Organization').evaluate((field) => field.matches(':focus'))).toBe(true)
  expect(await page.getByTestId('status').getAttribute('data-status')).toBe('ready')

  await window.fillForm('acme', newName())
  expect(await page.locator('input[aria-invalid=true]').count()).toBe(1)
  await page.getByLabel('Branch').fill('main')
  await window.clickDeploy()
  await window.waitForStatus('SUCCEEDED')
  expect(window.problems).toEqual([])
})

test('deploys with the keyboard only', async () => {
  const window = await open()
  const { page } = window
  const { keyboard } = page
  await window.waitUntilLive()
  await page.getByRole('radio', { name: 'Static site' }).waitFor()
  const focused = () =>
    page.evaluate('document.activeElement?.getAttribute("name") ?? document.activeElement?.innerText')
  const tabTo = async (target: string) => {
    for (let i = 0; i < 40 && (await focused()) !== target; i++) await keyboard.press('Tab')
    expect(await focused()).toBe(target)
  }

  await tabTo('org')
  await keyboard.type('acme')
  await tabTo('repo')
  await keyboard.type(newName())
  await keyboard.press('Tab')
  await keyboard.press('ArrowRight')
  expect(await page.getByRole('radio', { name: 'Public' }).isChecked()).toBe(true)
  await tabTo('Deploy')
  await keyboard.press('Enter')

  await window.waitForStatus('SUCCEEDED')
  await page.getByText('Public', { exact: true }).nth(1).waitFor()
  await tabTo('Copy')
})

test('fits a narrow screen, and a link shows its deployment', async () => {
  const window = await open('/', { viewport: { width: 360, height: 740 } })
  await window.waitUntilLive()
  await window.page.getByTestId('deployment-list-item').first().waitFor()
  expect(await window.page.evaluate('document.documentElement.scrollWidth')).toBe(360)

  await window.page.getByTestId('deployment-list-item').last().getByRole('link').click()
  await window.waitForStatus('SUCCEEDED')
  const linked = await open(`/#${window.deploymentIdFromUrl()}`)
  await linked.waitForStatus('SUCCEEDED')
  expect(await linked.statusTexts()).toEqual(['Done!'])
})

test('the playground runs a query and a subscription', async () => {
  const window = await open('/graphiql')
  const { page } = window
  const run = page.getByRole('button', { name: /^(execute|run)/i })
  // The editor appears after its tabs.
  await page.getByText('fileCount').first().waitFor()
  await run.click()
  await page.getByText('"hello-world"').first().waitFor()

  await page.getByRole('tab', { name: 'AllDeployments' }).click()
  await page.getByText('subscription').first().waitFor()
  const org = await holdOrganization('labs')
  const repo = newName()
  await server.request(DEPLOY_MUTATION, { input: deployInput({ org: 'labs', repo }) })
  await run.click()
  await page.getByText('"Creating org"').waitFor()
  await org.release()
  await page.getByText('"SUCCEEDED"').waitFor()
  await page.getByText(`"${repo}"`).waitFor()
  expect(window.problems).toEqual([])
})

test('the page loads at most 150 kB of JavaScript', async () => {
  const scripts = await findScripts(join(ROOT, 'dist/client'), 'index.html')
  const sizes = await Promise.all(
    scripts.map(async (path) => gzipSync(await readFile(join(ROOT, 'dist/client', path))).length),
  )
  expect(scripts.length).toBeGreaterThan(0)
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(150_000)
})

test.each(['light', 'dark'] as const)('looks like docs/screenshot-%s.png', async (colorScheme) => {
  const window = await open('/', { colorScheme, reducedMotion: 'reduce' })
  await window.waitUntilLive()
  await window.fillForm('acme', `${colorScheme}-website`)
  await window.clickDeploy()
  await window.waitForStatus('SUCCEEDED')
  await window.page.evaluate('window.scrollTo(0, 0)')
  await saveScreenshot(window.page, `screenshot-${colorScheme}`)
  expect(window.problems).toEqual([])
})
