import { execFile } from 'node:child_process'
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import sparticuz from '@sparticuz/chromium'
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core'

/**
 * The Chromium of the development dependencies; on platforms that it does not support, the installed Chrome.
 */
export async function launchBrowser(): Promise<Browser> {
  const quiet = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-first-run',
  ]
  if (process.platform !== 'linux') return chromium.launch({ channel: 'chrome', args: quiet })
  // In a single process, a page that crashes would end all others.
  const args = sparticuz.args.filter((arg) => arg !== '--single-process' && !arg.startsWith('--headless'))
  return chromium.launch({ executablePath: await unpackChromium(), args: [...args, ...quiet] })
}

/**
 * Resolves to the program, unpacked into this clone. By default, the library unpacks it into the system's
 * folder for temporary files, where the first account to do so locks out all others. Runs in a separate
 * process, because changes to `process.env` within Jest do not affect `os.tmpdir()`.
 */
async function unpackChromium(): Promise<string> {
  const folder = fileURLToPath(new URL('../../node_modules/.cache/chromium', import.meta.url))
  await mkdir(folder, { recursive: true })
  const program = `import('@sparticuz/chromium').then(async (it) => console.log(await it.default.executablePath()))`
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', program], {
    env: { ...process.env, TMPDIR: folder },
  })
  return stdout.trim()
}

/** A browser window of another user: shares nothing with other windows. */
export class BrowserWindow {
  /** Errors on its console, and requests to other hosts. */
  readonly problems: string[] = []

  private constructor(readonly page: Page) {}

  static async open(
    browser: Browser,
    url: string,
    options: BrowserContextOptions = {},
  ): Promise<BrowserWindow> {
    const context = await browser.newContext({
      locale: 'en-GB',
      timezoneId: 'UTC',
      viewport: { width: 1280, height: 960 },
      ...options,
    })
    const page = await context.newPage()
    page.setDefaultTimeout(30_000)
    const window = new BrowserWindow(page)
    page.on('console', (message) => {
      if (message.type() === 'error') window.problems.push(message.text())
    })
    page.on('pageerror', (error) => window.problems.push(String(error)))
    page.on('request', (request) => {
      const { protocol, host } = new URL(request.url())
      const isOurs = host === new URL(url).host || protocol === 'data:' || protocol === 'blob:'
      if (!isOurs) window.problems.push(`A request left the host: ${request.url()}`)
    })
    await page.addInitScript(recordTexts)
    await page.goto(url)
    return window
  }

  /** Every status text displayed since the page was loaded, in order. */
  statusTexts(): Promise<string[]> {
    return this.page.evaluate(() => (globalThis as unknown as { texts: string[] }).texts)
  }

  async waitUntilLive(): Promise<void> {
    await this.page.locator('[data-testid=connection][data-state=live]').waitFor()
  }

  /** Resolves when the displayed deployment has this status. */
  async waitForStatus(status: string): Promise<void> {
    await this.page.locator(`[data-testid=status][data-status=${status}]`).waitFor()
  }

  /** Resolves when the list shows the deployment with this status. */
  async waitForListItem(id: string, status: string): Promise<void> {
    await this.page
      .locator(`[data-testid=deployment-list-item][data-deployment-id="${id}"][data-status=${status}]`)
      .waitFor()
  }

  async fillForm(org: string, repo: string): Promise<void> {
    await this.page.getByLabel('Organization').fill(org)
    await this.page.getByLabel('Repository').fill(repo)
  }

  async clickDeploy(): Promise<void> {
    await this.page.getByRole('button', { name: 'Deploy', exact: true }).click()
  }

  /** The id of the deployment in the page's URL. */
  deploymentIdFromUrl(): string {
    return new URL(this.page.url()).hash.slice(1)
  }

  /** From the `git clone …` line that can be copied. */
  async cloneUrl(): Promise<string> {
    const command = await this.page.getByTestId('clone-command').textContent()
    return command?.replace(/^git clone /, '') ?? ''
  }

  /** Drops a folder or file of this machine on the page, as from a file manager. */
  async drop(path: string): Promise<void> {
    const devTools = await this.page.context().newCDPSession(this.page)
    const data = { items: [], files: [path], dragOperationsMask: 1 }
    for (const type of ['dragEnter', 'dragOver', 'drop'] as const) {
      await devTools.send('Input.dispatchDragEvent', { type, x: 640, y: 400, data })
    }
    await devTools.detach()
  }

  close(): Promise<void> {
    return this.page.context().close()
  }
}

/** Runs in the page, before anything else. */
function recordTexts(): void {
  const page = globalThis as unknown as {
    document: { querySelector(selector: string): { textContent: string | null } | null }
    MutationObserver: new (callback: () => void) => { observe(target: unknown, options: object): void }
    texts: string[]
  }
  page.texts = []
  const observer = new page.MutationObserver(() => {
    const text = page.document.querySelector('[data-testid=status-text]')?.textContent
    if (text && text !== page.texts.at(-1)) page.texts.push(text)
  })
  observer.observe(page.document, { childList: true, subtree: true, characterData: true })
}

/**
 * Saves docs/<name>.png if it does not exist, or with UPDATE_SCREENSHOTS: a test run must
 * not change committed files.
 */
export async function saveScreenshot(page: Page, name: string): Promise<void> {
  const screenshot = await page.screenshot()
  const folder = fileURLToPath(new URL('../../docs', import.meta.url))
  const file = join(folder, `${name}.png`)
  const exists = await stat(file).catch(() => undefined)
  if (exists && !process.env.UPDATE_SCREENSHOTS) return
  await mkdir(folder, { recursive: true })
  await writeFile(file, screenshot)
}

/** The JavaScript files that a built page loads at first, before any interaction. */
export async function findScripts(folder: string, page: string): Promise<string[]> {
  const html = await readFile(join(folder, page), 'utf8')
  const initial = [...html.matchAll(/(?:src|href)="\/(assets\/[^"]+\.js)"/g)].map(([, path]) => String(path))
  const all = new Set<string>()
  const add = async (path: string): Promise<void> => {
    if (all.has(path)) return
    all.add(path)
    const source = await readFile(join(folder, path), 'utf8')
    for (const [, name] of source.matchAll(/(?:from|import)\s*["']\.\/([^"']+\.js)["']/g))
      await add(`assets/${name}`)
  }
  for (const path of initial) await add(path)
  return [...all]
}
