import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { ContentFile } from '../../../src/github/git/commit-pack.ts'
import type { CommitPlan } from '../../../src/github/git/git-objects.ts'

/** Git's environment on a machine without configuration. */
export const CLEAN_ENVIRONMENT = {
  PATH: process.env.PATH,
  HOME: tmpdir(),
  LC_ALL: 'C',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_TERMINAL_PROMPT: '0',
}

const MAX_OUTPUT_BYTES = 256 * 1024 * 1024

/** Runs git and resolves to its output; rejects with its error output if it fails. */
export async function git(folder: string, ...args: string[]): Promise<string> {
  return (await gitBytes(folder, ...args)).toString('utf8')
}

export async function gitBytes(folder: string, ...args: string[]): Promise<Buffer> {
  const { stdout } = await promisify(execFile)('git', args, {
    cwd: folder,
    env: CLEAN_ENVIRONMENT,
    encoding: 'buffer',
    maxBuffer: MAX_OUTPUT_BYTES,
  })
  return stdout
}

export async function gitWithInput(folder: string, args: string[], input: Uint8Array): Promise<string> {
  const child = spawn('git', args, {
    cwd: folder,
    env: CLEAN_ENVIRONMENT,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  child.stdin.end(input)
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`git ${args[0]} ended with ${code}`)
  return output
}

export async function temporaryFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'shipcast-github-'))
}

export async function removeFolder(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true })
}

/** Creates the commit in a new bare repository with `git fast-import`, and resolves to its id. */
export async function fastImport(
  repository: string,
  files: readonly ContentFile[],
  plan: CommitPlan,
): Promise<string> {
  await git('/', 'init', '--quiet', '--bare', '--initial-branch=main', repository)
  await gitWithInput(repository, ['fast-import', '--quiet', '--done'], fastImportStream(files, plan))
  return (await git(repository, 'rev-parse', 'refs/heads/main')).trim()
}

export function fastImportStream(files: readonly ContentFile[], plan: CommitPlan): Buffer {
  const person = `${plan.author.name} <${plan.author.email}> ${plan.unixSeconds} +0000`
  const message = Buffer.from(plan.message)
  const chunks: Buffer[] = []
  files.forEach((file, i) => {
    chunks.push(Buffer.from(`blob\nmark :${i + 1}\ndata ${file.content.length}\n`), Buffer.from(file.content))
    chunks.push(Buffer.from('\n'))
  })
  chunks.push(Buffer.from(`commit refs/heads/main\nauthor ${person}\ncommitter ${person}\n`))
  chunks.push(Buffer.from(`data ${message.length}\n`), message, Buffer.from('\n'))
  files.forEach((file, i) => {
    chunks.push(Buffer.from(`M ${file.executable ? '100755' : '100644'} :${i + 1} ${quotePath(file.path)}\n`))
  })
  chunks.push(Buffer.from('\ndone\n'))
  return Buffer.concat(chunks)
}

/** Escapes all special characters in octal. */
function quotePath(path: string): string {
  const text = Buffer.from(path).toString('latin1')
  return `"${text.replace(/[^\w./-]/g, (byte) => `\\${byte.charCodeAt(0).toString(8).padStart(3, '0')}`)}"`
}
