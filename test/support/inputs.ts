import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const execFileAsync = promisify(execFile)

export const DEPLOY_MUTATION = `
  mutation Deploy($input: DeployInput!) {
    deploy(input: $input) { id org repo step status text sequence attempt fileCount sizeBytes cloneUrl }
  }`

export interface DeployResult {
  deploy: { id: string; status: string; step: string; text: string; sequence: number; attempt: number }
}

/** A small, valid input; each call names a new repository. */
export function deployInput(overrides: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    org: 'acme',
    repo: `demo-${crypto.randomUUID().slice(0, 13)}`,
    contents: { files: [{ path: 'README.md', content: '# Demo\n' }] },
    ...overrides,
  }
}

/** Runs git without user or system configuration; resolves to its output. */
export async function git(...args: string[]): Promise<string> {
  const { stdout } = await execFileAsync('git', args, {
    env: {
      ...process.env,
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_CONFIG_GLOBAL: '/dev/null',
      GIT_TERMINAL_PROMPT: '0',
    },
    maxBuffer: 64 * 1024 * 1024,
  })
  return stdout
}
