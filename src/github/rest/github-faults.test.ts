import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import {
  type FakeResponse,
  type Fault,
  FaultGitHub,
  NAME_TAKEN,
} from '../../../test/support/github/fault-github.ts'
import { git } from '../../../test/support/github/git.ts'
import { MemoryRateLimitStore } from '../../../test/support/github/memory-rate-limit-store.ts'
import { packContents } from '../../../test/support/github/pack-contents.ts'
import { codeFiles, SAMPLE_PLAN, textFile } from '../../../test/support/github/sample-contents.ts'
import { withTimeout } from '../../../test/support/processes.ts'
import { inMemory } from '../github-client.contract.ts'
import type { EnsureRepositoryInput } from '../github-client.ts'
import { GitHubRestClient, type GitHubRestOptions } from './github-rest-client.ts'

const calm = { signal: new AbortController().signal }
const MANY = await packContents(codeFiles(2_000), SAMPLE_PLAN)
const SAMPLE = await packContents([textFile('README.md', '# Site\n')], SAMPLE_PLAN)
const CREATE = /^POST \/orgs\/acme\/repos$/
const GET_REPO = /^GET \/repos\/acme\/site$/
const PUSH = /^POST \/acme\/site\.git\/git-receive-pack$/

let github: FaultGitHub
let client: GitHubRestClient
let pauses: MemoryRateLimitStore
let clients: GitHubRestClient[]

beforeEach(async () => {
  github = await FaultGitHub.start()
  pauses = new MemoryRateLimitStore()
  clients = []
  client = open()
})

afterEach(async () => {
  await Promise.all(clients.map((each) => each.close()))
  await github.close()
  expect(github.violations).toEqual([])
})

function open(changes: Partial<GitHubRestOptions> = {}): GitHubRestClient {
  const opened = new GitHubRestClient({
    apiUrl: github.url,
    credential: { kind: 'token', token: github.token },
    rateLimitStore: pauses,
    writeSpacingMs: 0,
    retrySchedule: { verifyDelaysMs: [0, 10, 20], propagationDelaysMs: [0, 10, 20, 40] },
    ...changes,
  })
  clients.push(opened)
  return opened
}

function wish(changes: Partial<EnsureRepositoryInput> = {}): EnsureRepositoryInput {
  return {
    owner: 'acme',
    name: 'site',
    visibility: 'PRIVATE',
    description: 'A site',
    intentId: 'intent-1',
    knownId: null,
    branch: 'main',
    plannedCommit: SAMPLE.commit,
    ...changes,
  }
}

function push(repositoryId: string, through = client, packed = SAMPLE) {
  const contents = inMemory(packed)
  return through.pushContents(
    { owner: 'acme', name: 'site', repositoryId, branch: 'main', expectedHead: null, contents },
    calm,
  )
}

const ensure = (input = wish()) => client.ensureRepository(input, calm)
const ensureOrg = (login = 'acme', repository?: EnsureRepositoryInput) =>
  client.ensureOrganization({ login, ...(repository && { repository }) }, calm)
const head = async () => client.branchHead({ owner: 'acme', name: 'site', branch: 'main' }, calm)
const code = (expected: string, message = /./) =>
  expect.objectContaining({ name: 'ForgeError', code: expected, message: expect.stringMatching(message) })
const answered =
  (status: number, body: unknown = {}, headers = {}) =>
  (): FakeResponse => ({ status, body, headers })

/** The repository as our create makes it. */
async function made() {
  await ensure()
  const found = github.repositories.get('acme/site')
  if (!found) throw new Error('It was not created.')
  return found
}

/** GitHub does it, and answers something else; null: nothing. */
const appliedBut =
  (answer: FakeResponse | null): Fault =>
  async (apply) => {
    await apply()
    return answer
  }

describe('creating a repository', () => {
  test.each([
    ['a 502 although it was applied', appliedBut({ status: 502, body: '<html>Bad Gateway</html>' })],
    ['an answer that is lost', appliedBut(null)],
    [
      'an answer that is cut off',
      appliedBut({ status: 201, body: 'half', headers: { 'content-length': '9000', connection: 'close' } }),
    ],
    ['a 422 although it was applied', appliedBut(NAME_TAKEN)],
    [
      'a 422 without errors although it was applied',
      appliedBut({ status: 422, body: { message: 'Sorry, your request timed out.' } }),
    ],
  ])('%s is looked up, and found to be ours', async (_what, fault) => {
    github.next(CREATE, fault)
    const repository = await ensure()
    expect(repository.outcome).toBe('existed')
    expect(github.repositories.size).toBe(1)
    expect(github.countRequests(CREATE)).toBe(1)
    await push(repository.id)
    expect(await head()).toBe(SAMPLE.commit)
  })

  test.each([
    ['with errors', NAME_TAKEN],
    ['without errors', { status: 422, body: { message: 'Repository already exists' } }],
  ])(
    'that was applied before a crash, and is not shown yet, is found behind its own name (422 %s)',
    async (_what, answer) => {
      const { homepage } = await made()
      github.repositories.delete('acme/site')
      await github.addRepository('acme', 'site', { homepage, hiddenRequestCount: 3 })
      github.next(CREATE, () => answer)
      expect((await ensure()).outcome).toBe('existed')
      expect(github.countRequests(CREATE)).toBe(2)
    },
  )

  test('is not repeated at once when the answer was lost; the next try finds nothing, and creates it', async () => {
    github.next(CREATE, answered(502), () => null)
    await expect(ensure()).rejects.toEqual(code('TRANSIENT'))
    await expect(ensure()).rejects.toEqual(code('TRANSIENT'))
    expect([github.countRequests(CREATE), github.repositories.size]).toEqual([2, 0])
    expect((await ensure()).outcome).toBe('created')
    expect(github.repositories.size).toBe(1)
  })

  test('that GitHub applies late, after we gave up, is found by the next try', async () => {
    let applyLate: (() => Promise<FakeResponse>) | undefined
    github.next(CREATE, (apply) => {
      applyLate = apply
      return null
    })
    await expect(ensure()).rejects.toEqual(code('TRANSIENT'))
    await applyLate?.()
    expect((await ensure()).outcome).toBe('existed')
    expect([github.countRequests(CREATE), github.repositories.size]).toEqual([1, 1])
  })

  test('waits no longer than it may for an answer', async () => {
    client = open({ callTimeoutMs: 200 })
    github.next(CREATE, () => new Promise<never>(() => {}))
    await expect(ensure()).rejects.toEqual(code('TRANSIENT', /no answer within 0.2 s/))
  })

  test('takes the answers that come slowly', async () => {
    github.always(/^(GET|POST) \/(user|orgs|repos)/, async (apply) => {
      await new Promise((resolve) => setTimeout(resolve, 30))
      return apply()
    })
    await ensureOrg()
    await push((await ensure()).id)
    expect(await head()).toBe(SAMPLE.commit)
  })

  test.each([
    ['with errors', NAME_TAKEN],
    ['without errors', { status: 422, body: { message: 'Repository already exists' } }],
  ])('never takes a namesake that appeared in between for ours (422 %s)', async (_what, answer) => {
    github.next(CREATE, async () => {
      await github.addRepository('acme', 'site')
      return answer
    })
    await expect(ensure()).rejects.toEqual(code('REPO_TAKEN', /acme\/site exists already/))
    expect(await head()).toBeNull()
  })

  test.each([
    ['empty, private and made a moment ago', {}],
    ['of another deployment', { homepage: 'https://shipcast.invalid/deployments/intent-2' }],
    ['public', { private: false }],
  ])("never takes another's repository: one that is %s", async (_what, changes) => {
    await github.addRepository('acme', 'Site', changes)
    await expect(ensureOrg('acme', wish())).rejects.toEqual(code('REPO_TAKEN'))
    await expect(ensure()).rejects.toMatchObject({ code: 'REPO_TAKEN', remedy: 'person' })
    expect(github.countRequests(/^(POST|PATCH|DELETE|PUT)/)).toBe(0)
  })

  test('of the same name by two deployments at once: one gets it, the other fails as taken', async () => {
    const both = Promise.withResolvers<void>()
    const first: Fault = async (apply) => {
      await withTimeout(both.promise, 'both creates reach GitHub')
      return apply()
    }
    const second: Fault = (apply) => {
      both.resolve()
      return apply()
    }
    github.next(CREATE, first, second)
    // With a queue of its own: writes of one queue wait for each other.
    const other = open({ rateLimitStore: new MemoryRateLimitStore() })
    const settled = await Promise.allSettled([
      ensure(),
      other.ensureRepository(wish({ intentId: 'intent-2' }), calm),
    ])
    expect(settled.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(settled).toContainEqual({ status: 'rejected', reason: code('REPO_TAKEN') })
    expect(github.countRequests(CREATE)).toBe(2)
  })

  test('does not touch the repository that once had the name', async () => {
    await github.addRepository('acme', 'site')
    await github.rename('acme/site', 'acme/old-site')
    // A retry could not say "yes, I want it".
    await expect(ensure()).rejects.toMatchObject({
      code: 'REPO_TAKEN',
      remedy: 'never',
      message: expect.stringMatching(
        /former name of acme\/old-site.*Start a new deployment with another name/,
      ),
    })
    expect(github.countRequests(CREATE)).toBe(0)
  })

  test('says what GitHub refuses: a plan without private repositories', async () => {
    github.next(
      CREATE,
      answered(422, { message: "Visibility can't be private. Please upgrade your subscription." }),
    )
    await expect(ensure()).rejects.toEqual(code('INVALID', /“Visibility can't be private. Please upgrade/))
  })

  test('is for the token’s own account, too', async () => {
    const own = wish({ owner: 'Octo-Admin' })
    expect(await ensureOrg('Octo-Admin', own)).toMatchObject({ outcome: 'existed', login: 'octo-admin' })
    expect(await ensure(own)).toMatchObject({ outcome: 'created', owner: 'octo-admin' })
    expect(github.countRequests(/^POST \/user\/repos$/)).toBe(1)
  })

  test('tells when a policy made it more visible than was asked for, and pushes nothing', async () => {
    github.next(CREATE, async (apply) => {
      const answer = await apply()
      return { ...answer, body: { ...(answer.body as object), private: false, visibility: 'public' } }
    })
    await expect(ensure()).rejects.toEqual(code('VISIBILITY_CHANGED', /is public, and was to be private/))
  })

  test('goes on under its new name when somebody renames it meanwhile', async () => {
    const { id } = await ensure()
    await github.rename('acme/site', 'acme/new-site')
    expect(await ensure(wish({ knownId: id }))).toMatchObject({ id, name: 'new-site' })
    expect(await push(id)).toEqual({ outcome: 'pushed', commit: SAMPLE.commit })
    expect(await head()).toBe(SAMPLE.commit)
    expect([...github.repositories.keys()]).toEqual(['acme/new-site'])
    expect(github.repositories.get('acme/new-site')?.homepage).toBeNull()
  })

  test('does not follow a redirect to another server, where the credential would go with it', async () => {
    const other = await FaultGitHub.start()
    github.next(GET_REPO, answered(301, {}, { location: `${other.url}/repositories/1` }))
    await expect(ensure()).rejects.toEqual(code('UNEXPECTED', /another server/))
    expect(other.requests).toEqual([])
    await other.close()
  })

  test('says when what answers is no GitHub', async () => {
    github.always(/./, answered(200, '<html>Welcome to the proxy</html>'))
    await expect(ensureOrg()).rejects.toEqual(code('UNEXPECTED', /not GitHub's API.*GITHUB_API_URL/))
  })
})

describe('pushing', () => {
  test('waits while GitHub does not show what we have just created', async () => {
    const { id } = await ensure()
    const repository = github.repositories.get('acme/site')
    if (repository) repository.hiddenRequestCount = 2
    github.next(/info\/refs/, answered(404), answered(409))
    expect(await push(id)).toMatchObject({ outcome: 'pushed' })
  })

  test.each([
    ['whose report is lost', appliedBut(null)],
    ['that is answered 502 although it was taken in', appliedBut({ status: 502 })],
    ['whose report is cut off', appliedBut({ status: 200, body: '0030\u0001000eunpa' })],
  ])('one %s is found on the branch', async (_what, fault) => {
    const { id } = await ensure()
    github.next(PUSH, fault)
    expect(await push(id)).toEqual({ outcome: 'pushed', commit: SAMPLE.commit })
    expect(github.countRequests(PUSH)).toBe(1)
  })

  test.each([
    ['of a few', SAMPLE],
    ['in chunks', MANY],
  ])('%s, cut off before it was taken in, is made again by the next try', async (_what, packed) => {
    const { id } = await ensure(wish({ plannedCommit: packed.commit }))
    github.next(PUSH, () => null)
    await expect(push(id, client, packed)).rejects.toEqual(code('TRANSIENT'))
    expect(await head()).toBeNull()
    expect(await push(id, client, packed)).toEqual({ outcome: 'pushed', commit: packed.commit })
    expect(await git(github.backend.repositoryPath('acme', 'site'), 'fsck', '--full', '--strict')).toBe('')
  })

  test.each([
    [
      'a hook',
      'echo "Not on a Friday." >&2; exit 1',
      'PUSH_REJECTED',
      'declined',
      /A hook.*“Not on a Friday. pre-receive hook declined”/,
    ],
    [
      'a file that is too large',
      'echo "error: GH001: Large files detected." >&2; exit 1',
      'TOO_LARGE',
      undefined,
      /100 MB/,
    ],
    [
      'a rule',
      'echo "error: GH013: Repository rule violations found for refs/heads/main." >&2; exit 1',
      'PUSH_REJECTED',
      'rule-violation',
      /A rule of acme\/site/,
    ],
    [
      'a secret',
      'echo "error: GH013: Repository rule violations found for refs/heads/main." >&2; echo "- Push cannot contain secrets" >&2; exit 1',
      'PUSH_REJECTED',
      'secret',
      /allow each at the address.*retry.*“error: GH013: .*main. - Push cannot contain secrets/,
    ],
    [
      'a missing LFS object',
      'echo "error: GH008: Your push referenced at least 1 unknown Git LFS object:" >&2; exit 1',
      'PUSH_REJECTED',
      'lfs-objects-missing',
      /git lfs push --object-id http:\S+\/acme\/site\.git .*then retry; or start a new deployment/,
    ],
    [
      'a missing scope',
      'echo "refusing to allow a Personal Access Token to create or update workflow .github/workflows/ci.yml without workflow scope" >&2; exit 1',
      'PUSH_REJECTED',
      'workflow-scope',
      /scope workflow.*Workflows: write/,
    ],
  ])('that %s declines (HTTP 200) says why', async (_what, script, expected, reason, message) => {
    const { id } = await ensure()
    await github.backend.create('acme', 'site', script)
    await expect(push(id)).rejects.toEqual(code(expected, message))
    await expect(push(id)).rejects.toMatchObject({ reason })
    expect(await head()).toBeNull()
  })

  test('that is declined for twelve secrets names each path and address; the log has all of it', async () => {
    const told: unknown[] = []
    client = open({ log: (...line) => told.push(line) })
    const { id } = await ensure()
    const found = Array.from({ length: 12 }, (_, n) => [
      '',
      `  —— Some API Key ${n} ————————————`,
      `     path: src/${n}.ts:3`,
      `     ${github.url}/acme/site/security/secret-scanning/unblock-secret/${n}`,
    ]).flat()
    const lines = [
      'error: GH013: Repository rule violations found.',
      '  - Push cannot contain secrets',
      ...found,
    ]
    await github.backend.create('acme', 'site', `cat >&2 <<'end'\n${lines.join('\n')}\nend\nexit 1`)
    const error = (await push(id).catch((each: unknown) => each)) as Error
    for (let n = 0; n < 12; n++) {
      expect(error.message).toContain(`Some API Key ${n} path: src/${n}.ts:3 ${github.url}`)
      expect(error.message).toContain(`unblock-secret/${n} `)
    }
    const words = expect.stringMatching(/^error: GH013.*Some API Key 0\npath: src.*declined$/s)
    expect(told).toEqual([['GitHub declined a push', { repository: 'acme/site', words }]])
  })

  test('to what git does not find for a moment is tried again', async () => {
    const { id } = await ensure()
    github.next(PUSH, answered(404, 'Repository not found.'))
    await expect(push(id)).rejects.toMatchObject({ code: 'TRANSIENT', remedy: 'backoff' })
    expect(await push(id)).toMatchObject({ outcome: 'pushed' })
  })

  test('is seen by whoever takes over, even where GitHub shows it late', async () => {
    await push((await ensure()).id)
    const other = open()
    github.next(/info\/refs\?service=git-upload-pack/, answered(404), answered(404))
    const seen = await other.branchHead({ owner: 'acme', name: 'site', branch: 'main' }, calm)
    expect(seen).toBe(SAMPLE.commit)
  })

  test('takes the mark off although GitHub stumbles', async () => {
    const { id } = await ensure()
    github.next(/^PATCH/, answered(502), () => null)
    expect(await push(id)).toMatchObject({ outcome: 'pushed' })
    expect(github.repositories.get('acme/site')?.homepage).toBeNull()
  })

  test('comes back to take the mark off when GitHub wants fewer requests meanwhile', async () => {
    const { id } = await ensure()
    github.next(/^PATCH/, answered(429))
    await expect(push(id)).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAt: expect.any(Date) })
    pauses.pausedUntilMs = 0
    expect(await push(id)).toMatchObject({ outcome: 'already-pushed' })
    expect(github.repositories.get('acme/site')?.homepage).toBeNull()
  })

  test('never overwrites a branch that somebody moved, neither before nor during the push', async () => {
    const other = await packContents([textFile('README.md', '# Other\n')], SAMPLE_PLAN)
    const { id } = await ensure()
    github.next(PUSH, async () => {
      await push(id, open(), other)
      return { status: 502 }
    })
    await expect(push(id)).rejects.toEqual(code('TRANSIENT'))
    await expect(push(id)).rejects.toEqual(code('REF_MOVED', new RegExp(other.commit)))
    expect(await head()).toBe(other.commit)
  })

  test('does not go to a namesake', async () => {
    const { id } = await ensure()
    github.repositories.delete('acme/site')
    await github.addRepository('acme', 'site')
    await expect(push(id)).rejects.toEqual(code('REPO_GONE'))
    expect(github.countRequests(PUSH)).toBe(0)
  })

  test('is told where to grant what git is refused', async () => {
    const { id } = await ensure()
    github.next(/info\/refs/, answered(403, 'Permission to acme/site.git denied to octo-admin.'))
    await expect(push(id)).rejects.toEqual(
      code('FORBIDDEN', /Contents: write.*Permission to acme\/site\.git denied/),
    )
  })

  test('does not fail because the mark could not be taken off', async () => {
    const told: string[] = []
    client = open({ log: (line) => told.push(line) })
    const { id } = await ensure()
    github.next(/^PATCH/, answered(403, { message: 'No.' }))
    expect(await push(id)).toMatchObject({ outcome: 'pushed' })
    expect(told).toEqual([expect.stringMatching(/homepage of acme\/site/)])
    expect(await push(id)).toMatchObject({ outcome: 'already-pushed' })
    expect(github.repositories.get('acme/site')?.homepage).toBeNull()
  })
})

describe('a credential', () => {
  test('that GitHub does not know is told at once', async () => {
    client = open({ credential: { kind: 'token', token: 'ghp_wrongWrongWrong' } })
    await expect(ensureOrg()).rejects.toEqual(
      code('UNAUTHENTICATED', /Bad credentials.*settings\/tokens|settings\/tokens/),
    )
    expect(github.requests).toEqual(['GET /user'])
  })

  test('that lacks a scope is told which, before anything is created', async () => {
    Object.assign(github.headers, { 'x-oauth-scopes': 'public_repo, read:org' })
    await expect(ensureOrg('acme', wish())).rejects.toEqual(
      code('FORBIDDEN', /scope repo, and has public_repo, read:org/),
    )
    await expect(ensureOrg('acme', wish({ visibility: 'PUBLIC' }))).resolves.toMatchObject({
      outcome: 'existed',
    })
  })

  test.each([
    [
      'a permission',
      { 'x-accepted-github-permissions': 'administration=write' },
      /it needs administration: write.*settings\/tokens/,
    ],
    [
      'single sign-on',
      { 'x-github-sso': 'required; url=https://github.com/orgs/acme/sso?authorization_request=A1' },
      /single sign-on.*https:\/\/github\.com\/orgs\/acme\/sso\?authorization_request=A1/,
    ],
    ['the right to create', {}, /You need admin access to the organization/],
  ])('that lacks %s is told so at the create, which is not repeated', async (_what, headers, message) => {
    github.next(
      CREATE,
      answered(
        403,
        { message: 'You need admin access to the organization before adding a repository to it.' },
        headers,
      ),
    )
    await expect(ensure()).rejects.toEqual(code('FORBIDDEN', message))
    expect(github.repositories.size).toBe(0)
  })

  test('of a member who may not create is told so before the create', async () => {
    github.orgs.set('acme', { login: 'acme', id: 9, members_can_create_private_repositories: false })
    github.next(/memberships/, answered(200, { state: 'active', role: 'member' }))
    await expect(ensureOrg('acme', wish())).rejects.toEqual(
      code('FORBIDDEN', /octo-admin is a member.*member_privileges/),
    )
  })

  test('never comes back in what GitHub says', async () => {
    const basic = Buffer.from(`x-access-token:${github.token}`).toString('base64')
    github.next(CREATE, answered(400, { message: `Bad token ${github.token}, ${basic}` }))
    const error = await ensure().catch((each: unknown) => each)
    expect(error).toEqual(code('INVALID', /Bad token \*\*\*, \*\*\*/))
    expect(JSON.stringify([error, String((error as Error).stack)])).not.toContain(github.token)
  })
})

describe('an organization', () => {
  test('that is missing names the page to create it on', async () => {
    github.next(/admin/, answered(404))
    await expect(ensureOrg('nowhere')).rejects.toEqual(code('ORG_MISSING', /\/account\/organizations\/new/))
    expect(github.countRequests(/^POST/)).toBe(1)
  })

  test.each([
    ['is created on Enterprise Server by a site administrator', false],
    ['whose creation was not answered is found', true],
  ])('%s', async (_what, isLost) => {
    github.next(/^POST \/admin\/organizations$/, () => {
      github.orgs.set('fresh', { login: 'fresh', id: 77 })
      return isLost ? null : { status: 201, body: { login: 'fresh', id: 77 } }
    })
    expect(await ensureOrg('fresh')).toEqual({ outcome: 'created', id: '77', login: 'fresh' })
    expect(github.countRequests(/admin/)).toBe(1)
  })

  test('is created on Enterprise Cloud in the enterprise that is named, or the reason is told', async () => {
    client = open({ enterprise: { slug: 'acme-inc', billingEmail: 'billing@acme.example' } })
    const asked: unknown[] = []
    let refusal: unknown
    github.graphqlHandler = (query, variables) => {
      asked.push(variables)
      if (query.startsWith('query')) return { data: { enterprise: { id: 'E_1' } } }
      if (refusal) return refusal
      github.orgs.set('fresh', { login: 'fresh', id: 78 })
      return { data: { createEnterpriseOrganization: { organization: { id: 'O_1', login: 'fresh' } } } }
    }
    refusal = { data: { createEnterpriseOrganization: null }, errors: [{ message: 'You must be an owner.' }] }
    await expect(ensureOrg('fresh')).rejects.toEqual(
      code('ORG_MISSING', /“You must be an owner”.*\/enterprises\/acme-inc\/organizations\/new/),
    )
    refusal = undefined
    expect(await ensureOrg('fresh')).toEqual({ outcome: 'created', id: '78', login: 'fresh' })
    const input = { adminLogins: ['octo-admin'], billingEmail: 'billing@acme.example', enterpriseId: 'E_1' }
    expect(asked.at(-1)).toEqual({ input: { ...input, login: 'fresh', profileName: 'fresh' } })
  })

  test('is found on a GitHub below a path', async () => {
    const server = await FaultGitHub.start({ base: '/api/v3' })
    const other = open({ apiUrl: `${server.url}/`, credential: { kind: 'token', token: server.token } })
    expect(await other.ensureOrganization({ login: 'ACME' }, calm)).toMatchObject({ login: 'acme', id: '9' })
    const { id } = await other.ensureRepository(wish(), calm)
    expect(await push(id, other)).toMatchObject({ outcome: 'pushed' })
    expect(server.violations).toEqual([])
    await server.close()
  })
})

describe('a rate limit', () => {
  const inAnHour = () => String(Math.floor(Date.now() / 1_000) + 3_600)
  test.each([
    [
      'primary, 403',
      () =>
        answered(
          403,
          { message: 'API rate limit exceeded' },
          { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': inAnHour() },
        ),
      3_600,
    ],
    [
      'primary, 429',
      () => answered(429, {}, { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': inAnHour() }),
      3_600,
    ],
    [
      'secondary, with retry-after',
      () => answered(403, { message: 'You have exceeded a secondary rate limit.' }, { 'retry-after': '30' }),
      30,
    ],
    [
      'secondary, without headers',
      () =>
        answered(403, { message: 'You have exceeded a secondary rate limit. Please wait a few minutes.' }),
      60,
    ],
    ['429, without a word', () => answered(429), 60],
  ])(
    '(%s) says until when, pauses the credential for everybody, and counts once',
    async (_what, answer, seconds) => {
      github.next(CREATE, answer())
      const error = await ensure().catch((each: unknown) => each)
      expect(error).toEqual(code('RATE_LIMITED', /goes on by itself at \d{4}-/))
      const waitsFor = ((error as { retryAt: Date }).retryAt.getTime() - Date.now()) / 1_000
      expect(waitsFor).toBeGreaterThan(seconds - 10)
      expect(waitsFor).toBeLessThan(seconds + 3)
      const before = github.requests.length
      await expect(ensure(wish({ name: 'other' }))).rejects.toEqual(code('RATE_LIMITED'))
      await expect(push('1', open())).rejects.toEqual(code('RATE_LIMITED'))
      expect(github.requests.length).toBe(before)
      expect(pauses.consecutiveRateLimits).toBe(1)

      pauses.pausedUntilMs = 0
      const { id } = await ensure()
      await push(id)
      expect([pauses.consecutiveRateLimits, github.repositories.size, await head()]).toEqual([
        0,
        1,
        SAMPLE.commit,
      ])
    },
  )

  test.each([
    ['primary', { type: 'RATE_LIMITED', message: 'API rate limit exceeded for user ID 7.' }, 3_600],
    ['secondary', { message: 'You have exceeded a secondary rate limit.' }, 60],
  ])('of GraphQL is a 200 (%s)', async (scope, error, seconds) => {
    client = open({ enterprise: { slug: 'acme-inc', billingEmail: 'billing@acme.example' } })
    github.graphqlHandler = () => {
      if (scope === 'primary') {
        Object.assign(github.headers, { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': inAnHour() })
      }
      return { data: null, errors: [error] }
    }
    const limited = await ensureOrg('fresh').catch((each: unknown) => each)
    expect(limited).toEqual(code('RATE_LIMITED'))
    const waitsFor = ((limited as { retryAt: Date }).retryAt.getTime() - Date.now()) / 1_000
    expect(waitsFor).toBeGreaterThan(seconds - 10)
    expect(waitsFor).toBeLessThan(seconds + 3)
  })

  test('five times in a row is left to a person', async () => {
    github.always(CREATE, answered(403, { message: 'You have exceeded a secondary rate limit.' }))
    const waits: number[] = []
    for (let strike = 1; strike <= 5; strike++) {
      pauses.pausedUntilMs = 0
      const error = await ensure().catch((each: unknown) => each)
      const { retryAt } = error as { retryAt?: Date }
      if (retryAt) waits.push(Math.round((retryAt.getTime() - Date.now()) / 60_000))
      else expect(error).toEqual(code('RATE_LIMITED', /limited this credential 5 times in a row/))
    }
    // Reads that got through in between said nothing about writes.
    expect(waits).toEqual([1, 2, 4, 8])
  })

  test('of several answers that were on their way at once is one', async () => {
    github.always(GET_REPO, answered(429))
    const settled = await Promise.allSettled([ensure(), ensure(), ensure()])
    for (const each of settled) expect(each).toMatchObject({ reason: code('RATE_LIMITED') })
    expect(pauses.consecutiveRateLimits).toBe(1)
  })

  test('is not what a missing permission is', async () => {
    github.next(
      CREATE,
      answered(
        403,
        { message: 'Resource not accessible by personal access token' },
        { 'x-ratelimit-remaining': '4999' },
      ),
    )
    await expect(ensure()).rejects.toEqual(code('FORBIDDEN'))
    expect(pauses.consecutiveRateLimits).toBe(0)
  })
})
