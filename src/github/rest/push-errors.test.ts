import { describe, expect, test } from '@jest/globals'
import { rejectionText, toPushError } from './push-errors.ts'

const TOKEN = 'ghp_secretSecretSecretSecretSecret000001'

function push(messages: string) {
  return {
    report: { messages, unpack: 'ok', ref: 'pre-receive hook declined' },
    repository: 'acme/site',
    url: 'https://github.com/acme/site.git',
    web: 'https://github.com',
    redact: (text: string) => text.replaceAll(TOKEN, '***'),
  }
}

const RULE_VIOLATION = /^A rule of acme\/site/
const SECRETS = /^GitHub found what look like secrets/
const DECLINED = /declined the push to acme\/site/

const errorFor = (messages: string) => toPushError(push(messages))

/** GitHub's message about secrets; git puts `remote:` before each line. */
function secrets(count: number, path = (n: number) => `src/config-${n}.ts`): string {
  const found = Array.from(
    { length: count },
    (_, n) => `

      —— GitHub Personal Access Token ——————————————————————
       locations:
         - commit: 8bd9ae4a00000000000000000000000000000000
           path: ${path(n)}:34

       (?) To push, remove secret from commit(s) or follow this URL to allow the secret.
       https://github.com/acme/site/security/secret-scanning/unblock-secret/2gakJrAududURpxlhIZdNlX1${n}`,
  )
  return `error: GH013: Repository rule violations found for refs/heads/main.

- GITHUB PUSH PROTECTION
  —————————————————————————————————————————
    Resolve the following violations before pushing again

    - Push cannot contain secrets


     (?) Learn how to resolve a blocked push
     https://docs.github.com/code-security/secret-scanning/pushing-a-branch-blocked-by-push-protection
${found.join('\n')}

`
}

describe('the error for a declined push', () => {
  test.each([
    ['error: GH001: Large files detected. You may want to try Git LFS', 'TOO_LARGE', /./, 'never'],
    [
      'error: GH002: Sorry, branch or tag names consisting of 40 hex characters are not allowed.',
      'INVALID_NAME',
      /./,
      'never',
    ],
    ['error: GH003: Sorry, force-pushing to main is not allowed.', 'PUSH_REJECTED', RULE_VIOLATION, 'person'],
    ['error: GH005: Sorry, refs longer than 255 bytes are not allowed.', 'INVALID_NAME', /./, 'never'],
    [
      'error: GH006: Protected branch update failed for refs/heads/main.',
      'PUSH_REJECTED',
      RULE_VIOLATION,
      'person',
    ],
    [
      'error: GH007: Your push would publish a private email address.',
      'PUSH_REJECTED',
      /email address/,
      'person',
    ],
    [
      'error: GH008: Your push referenced at least 3 unknown Git LFS objects:',
      'PUSH_REJECTED',
      /Git LFS/,
      'person',
    ],
    [
      'error: GH009: Git LFS object integrity could not be checked. Please contact GitHub support.',
      'PUSH_REJECTED',
      /Git LFS/,
      'person',
    ],
    ['error: GH009: Secrets detected! This push failed.', 'PUSH_REJECTED', SECRETS, 'person'],
    ['error: GH010: Something new.', 'PUSH_REJECTED', DECLINED, 'person'],
    [
      'error: GH013: Repository rule violations found for refs/heads/main.',
      'PUSH_REJECTED',
      RULE_VIOLATION,
      'person',
    ],
    [
      'error: GH014: Push cannot be completed as the required status check "x" has not passed.',
      'PUSH_REJECTED',
      RULE_VIOLATION,
      'person',
    ],
    [secrets(1), 'PUSH_REJECTED', SECRETS, 'person'],
    [
      'refusing to allow a GitHub App to create or update workflow `.github/workflows/ci.yml` without `workflows` permission',
      'PUSH_REJECTED',
      /scope workflow/,
      'person',
    ],
    ['Not on a Friday.', 'PUSH_REJECTED', DECLINED, 'person'],
  ])('names its cause: %s', (messages, code, advice, remedy) => {
    expect(errorFor(messages)).toMatchObject({ code, remedy, message: expect.stringMatching(advice) })
    const prefixed = messages.replace(/^/gm, 'remote: ')
    expect(errorFor(prefixed).message).toBe(errorFor(messages).message)
  })

  test('blames the objects if GitHub could not unpack them', () => {
    const { report, ...rest } = push('')
    const error = toPushError({ ...rest, report: { ...report, unpack: 'index-pack failed' } })
    expect(error.code).toBe('PUSH_REJECTED')
    expect(error.message).toMatch(/^GitHub could not store the contents.*index-pack failed/)
  })

  test('ignores codes in warnings and paths', () => {
    const warned = 'warning: GH001: Large files detected.\nerror: GH006: Protected branch update failed.'
    expect(errorFor(warned)).toMatchObject({ message: expect.stringMatching(RULE_VIOLATION) })
    const path = () => '.github/workflows/GH001-scope-permission.yml'
    expect(errorFor(secrets(1, path)).message).toMatch(SECRETS)
    const restricted =
      'error: GH013: Repository rule violations found.\n- GITHUB PUSH PROTECTION\n- File path is restricted'
    expect(errorFor(restricted)).toMatchObject({ message: expect.stringMatching(RULE_VIOLATION) })
  })

  test('keeps every path and URL of twelve secrets, without decoration', () => {
    const { message } = errorFor(secrets(12))
    for (let n = 0; n < 12; n++) {
      expect(message).toContain(`path: src/config-${n}.ts:34 `)
      expect(message).toContain(`unblock-secret/2gakJrAududURpxlhIZdNlX1${n} `)
    }
    expect(message).toContain('violations before pushing again - Push cannot contain secrets (?) Learn')
    expect(message).toContain(' GitHub Personal Access Token locations: - commit: 8bd9')
    expect(message).not.toMatch(/—|\s\s|\n/)
  })

  test('keeps the first line, URLs and paths of a long text; the log text is complete', () => {
    const folder = 'a-long-name-of-a-folder/'.repeat(8)
    const messages = `${secrets(12, (n) => `${folder}${n}.ts`)}\n${'and more\n'.repeat(2_000)}`
    const { message } = errorFor(messages)
    expect(message).toContain('“error: GH013: Repository rule violations found')
    expect(message).toMatch(/… \(the rest is in the log\)”\.$/)
    for (let n = 0; n < 12; n++) {
      expect(message).toContain(`path: ${folder}${n}.ts:34 `)
      expect(message).toContain(`unblock-secret/2gakJrAududURpxlhIZdNlX1${n} `)
    }
    expect(message.length).toBeLessThan(7_000)
    expect(rejectionText(push(messages)).match(/and more/g)).toHaveLength(2_000)
  })

  test('has a bounded length, also for one long line and for many URLs', () => {
    for (const messages of [
      'x'.repeat(60_000),
      `https://${'😀'.repeat(20_000)}`,
      'https://a.example/\n'.repeat(5_000),
    ]) {
      const { message } = errorFor(messages)
      expect(message.length).toBeLessThan(7_000)
      expect(message.isWellFormed()).toBe(true)
    }
  })

  test('contains no escape codes, no control characters and no secrets of ours', () => {
    const messages = `\u001B[31merror: GH006\u001B[0m: \u001B]8;;https://evil.example\u0007Protected\u001B]8;;\u0007 branch.\rupdate\u0000\u202E failed ${TOKEN}\u009B2J\b`
    const { message } = errorFor(messages)
    expect(message).toMatch(RULE_VIOLATION)
    expect(message).not.toMatch(/[\p{Cc}\p{Cf}]|\[31m|evil|ghp_/u)
    expect(message).toContain('error: GH006: Protected branch. update failed ***')
    expect(rejectionText(push(messages))).not.toMatch(/[^\P{Cc}\n]|ghp_/u)
  })
})
