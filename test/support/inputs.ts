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
