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

const context = { signal: new AbortController().signal }
const MANY = await packContents(codeFiles(2_000), SAMPLE_PLAN)
const SAMPLE = await packContents([textFile('README.md', '# Site\n')], SAMPLE_PLAN)
const CREATE = /^POST \/orgs\/acme\/repos$/
const GET_REPO = /^GET \/repos\/acme\/site$/
const PUSH = /^POST \/acme\/site\.git\/git-receive-pack$/

let github: FaultGitHub
let client: GitHubRestClient
let rateLimitStore: MemoryRateLimitStore
let clients: GitHubRestClient[]

beforeEach(async () => {
  github = await FaultGitHub.start()
  rateLimitStore = new MemoryRateLimitStore()
  clients = []
  client = createClient()
})

afterEach(async () => {
  await Promise.all(clients.map((each) => each.close()))
  await github.close()
  expect(github.violations).toEqual([])
})

function createClient(changes: Partial<GitHubRestOptions> = {}): GitHubRestClient {
  const created = new GitHubRestClient({
    apiUrl: github.url,
    credential: { kind: 'token', token: github.token },
    rateLimitStore,
    writeSpacingMs: 0,
    retrySchedule: { verifyDelaysMs: [0, 10, 20], propagationDelaysMs: [0, 10, 20, 40] },
    ...changes,
  })
  clients.push(created)
  return created
}

function repositoryInput(changes: Partial<EnsureRepositoryInput> = {}): EnsureRepositoryInput {
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
    context,
  )
}

const ensure = (input = repositoryInput()) => client.ensureRepository(input, context)
const ensureOrganization = (login = 'acme', repository?: EnsureRepositoryInput) =>
  client.ensureOrganization({ login, ...(repository && { repository }) }, context)
const readHead = () => client.branchHead({ owner: 'acme', name: 'site', branch: 'main' }, context)
const forgeError = (code: string, message = /./) =>
  expect.objectContaining({ name: 'ForgeError', code, message: expect.stringMatching(message) })
const respondWith =
  (status: number, body: unknown = {}, headers = {}) =>
  (): FakeResponse => ({ status, body, headers })

/** The repository as our create makes it. */
async function createdRepository() {
  await ensure()
  const repository = github.repositories.get('acme/site')
  if (!repository) throw new Error('acme/site was not created.')
  return repository
}

/** GitHub applies the request but responds otherwise; null: not at all. */
const appliedBut =
  (response: FakeResponse | null): Fault =>
  async (apply) => {
    await apply()
    return response
  }

describe('creating a repository', () => {
  test.each([
    ['a 502 although it was applied', appliedBut({ status: 502, body: '<html>Bad Gateway</html>' })],
    ['a lost response', appliedBut(null)],
    [
      'a truncated response',
      appliedBut({ status: 201, body: 'half', headers: { 'content-length': '9000', connection: 'close' } }),
    ],
    ['a 422 although it was applied', appliedBut(NAME_TAKEN)],
    [
      'a 422 without errors although it was applied',
      appliedBut({ status: 422, body: { message: 'Sorry, your request timed out.' } }),
    ],
  ])('finds our repository after %s', async (_case, fault) => {
    github.next(CREATE, fault)
    const repository = await ensure()
    expect(repository.outcome).toBe('existed')
    expect(github.repositories.size).toBe(1)
    expect(github.countRequests(CREATE)).toBe(1)
    await push(repository.id)
    expect(await readHead()).toBe(SAMPLE.commit)
  })

  test.each([
    ['with errors', NAME_TAKEN],
    ['without errors', { status: 422, body: { message: 'Repository already exists' } }],
  ])(
    'finds a repository created before a crash that is not visible yet (422 %s)',
    async (_case, response) => {
      const { homepage } = await createdRepository()
      github.repositories.delete('acme/site')
      await github.addRepository('acme', 'site', { homepage, hiddenRequestCount: 3 })
      github.next(CREATE, () => response)
      expect((await ensure()).outcome).toBe('existed')
      expect(github.countRequests(CREATE)).toBe(2)
    },
  )

  test('is not repeated after a lost response; the next attempt finds nothing and creates it', async () => {
    github.next(CREATE, respondWith(502), () => null)
    await expect(ensure()).rejects.toEqual(forgeError('TRANSIENT'))
    await expect(ensure()).rejects.toEqual(forgeError('TRANSIENT'))
    expect([github.countRequests(CREATE), github.repositories.size]).toEqual([2, 0])
    expect((await ensure()).outcome).toBe('created')
    expect(github.repositories.size).toBe(1)
  })

  test('finds at the next attempt what GitHub applied after the timeout', async () => {
    let applyLate: (() => Promise<FakeResponse>) | undefined
    github.next(CREATE, (apply) => {
      applyLate = apply
      return null
    })
    await expect(ensure()).rejects.toEqual(forgeError('TRANSIENT'))
    await applyLate?.()
    expect((await ensure()).outcome).toBe('existed')
    expect([github.countRequests(CREATE), github.repositories.size]).toEqual([1, 1])
  })

  test('times out', async () => {
    client = createClient({ callTimeoutMs: 200 })
    github.next(CREATE, () => new Promise<never>(() => {}))
    await expect(ensure()).rejects.toEqual(forgeError('TRANSIENT', /no response within 0.2 s/))
  })

  test('works with slow responses', async () => {
    github.always(/^(GET|POST) \/(user|orgs|repos)/, async (apply) => {
      await new Promise((resolve) => setTimeout(resolve, 30))
      return apply()
    })
    await ensureOrganization()
    await push((await ensure()).id)
    expect(await readHead()).toBe(SAMPLE.commit)
  })

  test.each([
    ['with errors', NAME_TAKEN],
    ['without errors', { status: 422, body: { message: 'Repository already exists' } }],
  ])('never adopts a repository of that name that appeared in between (422 %s)', async (_case, response) => {
    github.next(CREATE, async () => {
      await github.addRepository('acme', 'site')
      return response
    })
    await expect(ensure()).rejects.toEqual(forgeError('REPO_TAKEN', /acme\/site already exists/))
    expect(await readHead()).toBeNull()
  })

  test.each([
    ['empty, private and created a moment ago', {}],
    ['of another deployment', { homepage: 'https://shipcast.invalid/deployments/intent-2' }],
    ['public', { private: false }],
  ])("never adopts another's repository: %s", async (_case, changes) => {
    await github.addRepository('acme', 'Site', changes)
    await expect(ensureOrganization('acme', repositoryInput())).rejects.toEqual(forgeError('REPO_TAKEN'))
    await expect(ensure()).rejects.toMatchObject({ code: 'REPO_TAKEN', remedy: 'person' })
    expect(github.countRequests(/^(POST|PATCH|DELETE|PUT)/)).toBe(0)
  })

  test('with one name by two concurrent deployments: one succeeds, the other fails with REPO_TAKEN', async () => {
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
    // Has its own throttle: writes with one throttle wait for each other.
    const other = createClient({ rateLimitStore: new MemoryRateLimitStore() })
    const settled = await Promise.allSettled([
      ensure(),
      other.ensureRepository(repositoryInput({ intentId: 'intent-2' }), context),
    ])
    expect(settled.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(settled).toContainEqual({ status: 'rejected', reason: forgeError('REPO_TAKEN') })
    expect(github.countRequests(CREATE)).toBe(2)
  })

  test('refuses the former name of another repository', async () => {
    await github.addRepository('acme', 'site')
    await github.rename('acme/site', 'acme/old-site')
    await expect(ensure()).rejects.toMatchObject({
      code: 'REPO_TAKEN',
      remedy: 'never',
      message: expect.stringMatching(
        /former name of acme\/old-site.*Start a new deployment with another name/,
      ),
    })
    expect(github.countRequests(CREATE)).toBe(0)
  })

  test('quotes the reason of a refusal: a plan without private repositories', async () => {
    github.next(
      CREATE,
      respondWith(422, { message: "Visibility can't be private. Please upgrade your subscription." }),
    )
    await expect(ensure()).rejects.toEqual(
      forgeError('INVALID', /“Visibility can't be private. Please upgrade/),
    )
  })

  test("works in the token's own account, too", async () => {
    const own = repositoryInput({ owner: 'Octo-Admin' })
    expect(await ensureOrganization('Octo-Admin', own)).toMatchObject({
      outcome: 'existed',
      login: 'octo-admin',
    })
    expect(await ensure(own)).toMatchObject({ outcome: 'created', owner: 'octo-admin' })
    expect(github.countRequests(/^POST \/user\/repos$/)).toBe(1)
  })

  test('fails if a policy made it more visible than requested', async () => {
    github.next(CREATE, async (apply) => {
      const response = await apply()
      return { ...response, body: { ...(response.body as object), private: false, visibility: 'public' } }
    })
    await expect(ensure()).rejects.toEqual(forgeError('VISIBILITY_CHANGED', /is public instead of private/))
  })

  test('continues under its new name if it is renamed meanwhile', async () => {
    const { id } = await ensure()
    await github.rename('acme/site', 'acme/new-site')
    expect(await ensure(repositoryInput({ knownId: id }))).toMatchObject({ id, name: 'new-site' })
    expect(await push(id)).toEqual({ outcome: 'pushed', commit: SAMPLE.commit })
    expect(await readHead()).toBe(SAMPLE.commit)
    expect([...github.repositories.keys()]).toEqual(['acme/new-site'])
    expect(github.repositories.get('acme/new-site')?.homepage).toBeNull()
  })

  test('does not follow a redirect to another server, which would receive the credential', async () => {
    const other = await FaultGitHub.start()
    github.next(GET_REPO, respondWith(301, {}, { location: `${other.url}/repositories/1` }))
    await expect(ensure()).rejects.toEqual(forgeError('UNEXPECTED', /another server/))
    expect(other.requests).toEqual([])
    await other.close()
  })

  test('reports a server that is not GitHub', async () => {
    github.always(/./, respondWith(200, '<html>Welcome to the proxy</html>'))
    await expect(ensureOrganization()).rejects.toEqual(
      forgeError('UNEXPECTED', /not GitHub's API.*GITHUB_API_URL/),
    )
  })
})

describe('pushing', () => {
  test('waits until GitHub shows the new repository', async () => {
    const { id } = await ensure()
    const repository = github.repositories.get('acme/site')
    if (repository) repository.hiddenRequestCount = 2
    github.next(/info\/refs/, respondWith(404), respondWith(409))
    expect(await push(id)).toMatchObject({ outcome: 'pushed' })
  })

  test.each([
    ['a lost report', appliedBut(null)],
    ['a 502 although it was applied', appliedBut({ status: 502 })],
    ['a truncated report', appliedBut({ status: 200, body: '0030\u0001000eunpa' })],
  ])('finds its commit on the branch after %s', async (_case, fault) => {
    const { id } = await ensure()
    github.next(PUSH, fault)
    expect(await push(id)).toEqual({ outcome: 'pushed', commit: SAMPLE.commit })
    expect(github.countRequests(PUSH)).toBe(1)
  })

  test.each([
    ['one request body', SAMPLE],
    ['chunks', MANY],
  ])('in %s, interrupted before it was applied, is repeated by the next attempt', async (_case, packed) => {
    const { id } = await ensure(repositoryInput({ plannedCommit: packed.commit }))
    github.next(PUSH, () => null)
    await expect(push(id, client, packed)).rejects.toEqual(forgeError('TRANSIENT'))
    expect(await readHead()).toBeNull()
    expect(await push(id, client, packed)).toEqual({ outcome: 'pushed', commit: packed.commit })
    expect(await git(github.backend.repositoryPath('acme', 'site'), 'fsck', '--full', '--strict')).toBe('')
  })

  test.each([
    [
      'a hook',
      'echo "Not on a Friday." >&2; exit 1',
      'PUSH_REJECTED',
      /A hook.*“Not on a Friday. pre-receive hook declined”/,
    ],
    [
      'a file that is too large',
      'echo "error: GH001: Large files detected." >&2; exit 1',
      'TOO_LARGE',
      /100 MB/,
    ],
    [
      'a rule',
      'echo "error: GH013: Repository rule violations found for refs/heads/main." >&2; exit 1',
      'PUSH_REJECTED',
      /A rule of acme\/site/,
    ],
    [
      'a secret',
      'echo "error: GH013: Repository rule violations found for refs/heads/main." >&2; echo "- Push cannot contain secrets" >&2; exit 1',
      'PUSH_REJECTED',
      /allow each one at the URL.*retry.*“error: GH013: .*main. - Push cannot contain secrets/,
    ],
    [
      'a missing LFS object',
      'echo "error: GH008: Your push referenced at least 1 unknown Git LFS object:" >&2; exit 1',
      'PUSH_REJECTED',
      /git lfs push --object-id http:\S+\/acme\/site\.git .*then retry; or start a new deployment/,
    ],
    [
      'a missing scope',
      'echo "refusing to allow a Personal Access Token to create or update workflow .github/workflows/ci.yml without workflow scope" >&2; exit 1',
      'PUSH_REJECTED',
      /scope workflow.*Workflows: write/,
    ],
  ])('declined because of %s (HTTP 200) says why', async (_case, script, code, message) => {
    const { id } = await ensure()
    await github.backend.create('acme', 'site', script)
    await expect(push(id)).rejects.toEqual(forgeError(code, message))
    expect(await readHead()).toBeNull()
  })

  test('declined for twelve secrets names each path and URL; the log has the full text', async () => {
    const logged: unknown[] = []
    client = createClient({ log: (...line) => logged.push(line) })
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
    const text = expect.stringMatching(/^error: GH013.*Some API Key 0\npath: src.*declined$/s)
    expect(logged).toEqual([['GitHub declined a push', { repository: 'acme/site', text }]])
  })

  test('to a repository that git does not find yet can be retried', async () => {
    const { id } = await ensure()
    github.next(PUSH, respondWith(404, 'Repository not found.'))
    await expect(push(id)).rejects.toMatchObject({ code: 'TRANSIENT', remedy: 'backoff' })
    expect(await push(id)).toMatchObject({ outcome: 'pushed' })
  })

  test('is visible to another client even if GitHub shows it late', async () => {
    await push((await ensure()).id)
    const other = createClient()
    github.next(/info\/refs\?service=git-upload-pack/, respondWith(404), respondWith(404))
    const head = await other.branchHead({ owner: 'acme', name: 'site', branch: 'main' }, context)
    expect(head).toBe(SAMPLE.commit)
  })

  test('clears the ownership marker despite temporary failures', async () => {
    const { id } = await ensure()
    github.next(/^PATCH/, respondWith(502), () => null)
    expect(await push(id)).toMatchObject({ outcome: 'pushed' })
    expect(github.repositories.get('acme/site')?.homepage).toBeNull()
  })

  test('clears the ownership marker after a rate limit', async () => {
    const { id } = await ensure()
    github.next(/^PATCH/, respondWith(429))
    await expect(push(id)).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAt: expect.any(Date) })
    rateLimitStore.pausedUntilMs = 0
    expect(await push(id)).toMatchObject({ outcome: 'already-pushed' })
    expect(github.repositories.get('acme/site')?.homepage).toBeNull()
  })

  test('never overwrites a branch that moved before or during the push', async () => {
    const other = await packContents([textFile('README.md', '# Other\n')], SAMPLE_PLAN)
    const { id } = await ensure()
    github.next(PUSH, async () => {
      await push(id, createClient(), other)
      return { status: 502 }
    })
    await expect(push(id)).rejects.toEqual(forgeError('TRANSIENT'))
    await expect(push(id)).rejects.toEqual(forgeError('REF_MOVED', new RegExp(other.commit)))
    expect(await readHead()).toBe(other.commit)
  })

  test('never goes to another repository of the same name', async () => {
    const { id } = await ensure()
    github.repositories.delete('acme/site')
    await github.addRepository('acme', 'site')
    await expect(push(id)).rejects.toEqual(forgeError('REPO_GONE'))
    expect(github.countRequests(PUSH)).toBe(0)
  })

  test('that lacks a permission says where to grant it', async () => {
    const { id } = await ensure()
    github.next(/info\/refs/, respondWith(403, 'Permission to acme/site.git denied to octo-admin.'))
    await expect(push(id)).rejects.toEqual(
      forgeError('FORBIDDEN', /Contents: write.*Permission to acme\/site\.git denied/),
    )
  })

  test('succeeds even if the ownership marker cannot be cleared', async () => {
    const logged: unknown[] = []
    client = createClient({ log: (...line) => logged.push(line) })
    const { id } = await ensure()
    github.next(/^PATCH/, respondWith(403, { message: 'No.' }))
    expect(await push(id)).toMatchObject({ outcome: 'pushed' })
    expect(logged).toEqual([
      [
        'Could not clear the homepage of a repository',
        { repository: 'acme/site', error: expect.stringMatching(/clear the homepage of acme\/site/) },
      ],
    ])
    expect(await push(id)).toMatchObject({ outcome: 'already-pushed' })
    expect(github.repositories.get('acme/site')?.homepage).toBeNull()
  })
})

describe('a credential', () => {
  test('unknown to GitHub fails at the first request', async () => {
    client = createClient({ credential: { kind: 'token', token: 'ghp_wrongWrongWrong' } })
    await expect(ensureOrganization()).rejects.toEqual(
      forgeError('UNAUTHENTICATED', /Bad credentials.*settings\/tokens/),
    )
    expect(github.requests).toEqual(['GET /user'])
  })

  test('without a scope fails before anything is created, naming the scope', async () => {
    Object.assign(github.headers, { 'x-oauth-scopes': 'public_repo, read:org' })
    await expect(ensureOrganization('acme', repositoryInput())).rejects.toEqual(
      forgeError('FORBIDDEN', /scope repo but has public_repo, read:org/),
    )
    await expect(
      ensureOrganization('acme', repositoryInput({ visibility: 'PUBLIC' })),
    ).resolves.toMatchObject({
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
  ])('without %s fails at the create, which is not repeated', async (_case, headers, message) => {
    github.next(
      CREATE,
      respondWith(
        403,
        { message: 'You need admin access to the organization before adding a repository to it.' },
        headers,
      ),
    )
    await expect(ensure()).rejects.toEqual(forgeError('FORBIDDEN', message))
    expect(github.repositories.size).toBe(0)
  })

  test('of a member without the right to create fails before the create', async () => {
    github.orgs.set('acme', { login: 'acme', id: 9, members_can_create_private_repositories: false })
    github.next(/memberships/, respondWith(200, { state: 'active', role: 'member' }))
    await expect(ensureOrganization('acme', repositoryInput())).rejects.toEqual(
      forgeError('FORBIDDEN', /octo-admin is a member.*member_privileges/),
    )
  })

  test("is redacted from GitHub's messages", async () => {
    const basic = Buffer.from(`x-access-token:${github.token}`).toString('base64')
    github.next(CREATE, respondWith(400, { message: `Bad token ${github.token}, ${basic}` }))
    const error = await ensure().catch((each: unknown) => each)
    expect(error).toEqual(forgeError('INVALID', /Bad token \*\*\*, \*\*\*/))
    expect(JSON.stringify([error, String((error as Error).stack)])).not.toContain(github.token)
  })
})

describe('an organization', () => {
  test('that is missing fails with the page to create it on', async () => {
    github.next(/admin/, respondWith(404))
    await expect(ensureOrganization('nowhere')).rejects.toEqual(
      forgeError('ORG_MISSING', /\/account\/organizations\/new/),
    )
    expect(github.countRequests(/^POST/)).toBe(1)
  })

  test.each([
    ['is created on Enterprise Server by a site administrator', false],
    ['is found if the response to its creation was lost', true],
  ])('%s', async (_case, isLost) => {
    github.next(/^POST \/admin\/organizations$/, () => {
      github.orgs.set('fresh', { login: 'fresh', id: 77 })
      return isLost ? null : { status: 201, body: { login: 'fresh', id: 77 } }
    })
    expect(await ensureOrganization('fresh')).toEqual({ outcome: 'created', id: '77', login: 'fresh' })
    expect(github.countRequests(/admin/)).toBe(1)
  })

  test('is created on Enterprise Cloud in the configured enterprise, or the error quotes the reason', async () => {
    client = createClient({ enterprise: { slug: 'acme-inc', billingEmail: 'billing@acme.example' } })
    const variablesSent: unknown[] = []
    let refusal: unknown
    github.graphqlHandler = (query, variables) => {
      variablesSent.push(variables)
      if (query.startsWith('query')) return { data: { enterprise: { id: 'E_1' } } }
      if (refusal) return refusal
      github.orgs.set('fresh', { login: 'fresh', id: 78 })
      return { data: { createEnterpriseOrganization: { organization: { id: 'O_1', login: 'fresh' } } } }
    }
    refusal = { data: { createEnterpriseOrganization: null }, errors: [{ message: 'You must be an owner.' }] }
    await expect(ensureOrganization('fresh')).rejects.toEqual(
      forgeError('ORG_MISSING', /“You must be an owner”.*\/enterprises\/acme-inc\/organizations\/new/),
    )
    refusal = undefined
    expect(await ensureOrganization('fresh')).toEqual({ outcome: 'created', id: '78', login: 'fresh' })
    const input = { adminLogins: ['octo-admin'], billingEmail: 'billing@acme.example', enterpriseId: 'E_1' }
    expect(variablesSent.at(-1)).toEqual({ input: { ...input, login: 'fresh', profileName: 'fresh' } })
  })

  test('is found on a GitHub whose API is below a path', async () => {
    const server = await FaultGitHub.start({ base: '/api/v3' })
    const other = createClient({
      apiUrl: `${server.url}/`,
      credential: { kind: 'token', token: server.token },
    })
    expect(await other.ensureOrganization({ login: 'ACME' }, context)).toMatchObject({
      login: 'acme',
      id: '9',
    })
    const { id } = await other.ensureRepository(repositoryInput(), context)
    expect(await push(id, other)).toMatchObject({ outcome: 'pushed' })
    expect(server.violations).toEqual([])
    await server.close()
  })
})

describe('a rate limit', () => {
  const inOneHour = () => String(Math.floor(Date.now() / 1_000) + 3_600)
  test.each([
    [
      'primary, 403',
      () =>
        respondWith(
          403,
          { message: 'API rate limit exceeded' },
          { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': inOneHour() },
        ),
      3_600,
    ],
    [
      'primary, 429',
      () => respondWith(429, {}, { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': inOneHour() }),
      3_600,
    ],
    [
      'secondary, with retry-after',
      () =>
        respondWith(403, { message: 'You have exceeded a secondary rate limit.' }, { 'retry-after': '30' }),
      30,
    ],
    [
      'secondary, without headers',
      () =>
        respondWith(403, { message: 'You have exceeded a secondary rate limit. Please wait a few minutes.' }),
      60,
    ],
    ['429, without headers or text', () => respondWith(429), 60],
  ])(
    '(%s) names the time, pauses the credential for all clients, and counts once',
    async (_case, respond, seconds) => {
      github.next(CREATE, respond())
      const error = await ensure().catch((each: unknown) => each)
      expect(error).toEqual(forgeError('RATE_LIMITED', /Continues automatically at \d{4}-/))
      const waitSeconds = ((error as { retryAt: Date }).retryAt.getTime() - Date.now()) / 1_000
      expect(waitSeconds).toBeGreaterThan(seconds - 10)
      expect(waitSeconds).toBeLessThan(seconds + 3)
      const before = github.requests.length
      await expect(ensure(repositoryInput({ name: 'other' }))).rejects.toEqual(forgeError('RATE_LIMITED'))
      await expect(push('1', createClient())).rejects.toEqual(forgeError('RATE_LIMITED'))
      expect(github.requests.length).toBe(before)
      expect(rateLimitStore.consecutiveRateLimits).toBe(1)

      rateLimitStore.pausedUntilMs = 0
      const { id } = await ensure()
      await push(id)
      expect([rateLimitStore.consecutiveRateLimits, github.repositories.size, await readHead()]).toEqual([
        0,
        1,
        SAMPLE.commit,
      ])
    },
  )

  test.each([
    ['primary', { type: 'RATE_LIMITED', message: 'API rate limit exceeded for user ID 7.' }, 3_600],
    ['secondary', { message: 'You have exceeded a secondary rate limit.' }, 60],
  ])('of GraphQL is recognized in a 200 (%s)', async (kind, error, seconds) => {
    client = createClient({ enterprise: { slug: 'acme-inc', billingEmail: 'billing@acme.example' } })
    github.graphqlHandler = () => {
      if (kind === 'primary') {
        Object.assign(github.headers, { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': inOneHour() })
      }
      return { data: null, errors: [error] }
    }
    const limited = await ensureOrganization('fresh').catch((each: unknown) => each)
    expect(limited).toEqual(forgeError('RATE_LIMITED'))
    const waitSeconds = ((limited as { retryAt: Date }).retryAt.getTime() - Date.now()) / 1_000
    expect(waitSeconds).toBeGreaterThan(seconds - 10)
    expect(waitSeconds).toBeLessThan(seconds + 3)
  })

  test('five times in a row requires a person', async () => {
    github.always(CREATE, respondWith(403, { message: 'You have exceeded a secondary rate limit.' }))
    const waitMinutes: number[] = []
    for (let attempt = 1; attempt <= 5; attempt++) {
      rateLimitStore.pausedUntilMs = 0
      const error = await ensure().catch((each: unknown) => each)
      const { retryAt } = error as { retryAt?: Date }
      if (retryAt) waitMinutes.push(Math.round((retryAt.getTime() - Date.now()) / 60_000))
      else expect(error).toEqual(forgeError('RATE_LIMITED', /limited this credential 5 times in a row/))
    }
    // The successful reads in between do not reset a limit on writes.
    expect(waitMinutes).toEqual([1, 2, 4, 8])
  })

  test('counts once for several requests in flight', async () => {
    github.always(GET_REPO, respondWith(429))
    const settled = await Promise.allSettled([ensure(), ensure(), ensure()])
    for (const each of settled) expect(each).toMatchObject({ reason: forgeError('RATE_LIMITED') })
    expect(rateLimitStore.consecutiveRateLimits).toBe(1)
  })

  test('is not confused with a missing permission', async () => {
    github.next(
      CREATE,
      respondWith(
        403,
        { message: 'Resource not accessible by personal access token' },
        { 'x-ratelimit-remaining': '4999' },
      ),
    )
    await expect(ensure()).rejects.toEqual(forgeError('FORBIDDEN'))
    expect(rateLimitStore.consecutiveRateLimits).toBe(0)
  })
})
