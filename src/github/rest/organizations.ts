import { z } from 'zod'
import { ForgeError } from '../forge-error.ts'
import type { CallContext, EnsureOrganizationInput, Organization, Visibility } from '../github-client.ts'
import { requireValidLogin } from '../repository-names.ts'
import { AppCredential } from './credential.ts'
import { isSameName } from './endpoints.ts'
import { type ApiResponse, type GitHubApi, Id, parseBody, settingsUrl } from './github-api.ts'
import { parseErrorBody, parseJson, parseScopes, toForgeError, toPlainLine } from './github-errors.ts'
import { pollUntilFound, type RetrySchedule } from './retry-schedule.ts'

/** Where organizations can be created on Enterprise Cloud. */
export interface EnterpriseSettings {
  slug: string
  billingEmail: string
}

/** The account that the token belongs to: GET /user. */
const ViewerBody = z.object({ login: z.string().min(1), id: Id })

export interface Viewer extends z.output<typeof ViewerBody> {
  /** The scopes of a classic token; null for other credentials, for which GitHub does not report them. */
  scopes: ReadonlySet<string> | null
}

/** GitHub reports these flags only to owners. */
const Flag = z.boolean().optional().catch(undefined)

/** GET /orgs/{org}. */
export const OrganizationBody = z
  .object({
    login: z.string().min(1),
    id: Id,
    members_can_create_repositories: Flag,
    members_can_create_public_repositories: Flag,
    members_can_create_private_repositories: Flag,
  })
  .transform(({ login, id, ...flags }) => {
    const canCreateNone = flags.members_can_create_repositories === false
    return {
      login,
      id,
      membersCanCreate: {
        PUBLIC: canCreateNone ? false : flags.members_can_create_public_repositories,
        PRIVATE: canCreateNone ? false : flags.members_can_create_private_repositories,
      },
    }
  })
type OrganizationFacts = z.output<typeof OrganizationBody>

/** Accounts that can own repositories: organizations, and the token's own account. */
export class Organizations {
  private readonly api: GitHubApi
  private readonly enterprise: EnterpriseSettings | undefined
  private readonly retrySchedule: RetrySchedule

  constructor(api: GitHubApi, enterprise: EnterpriseSettings | undefined, retrySchedule: RetrySchedule) {
    this.api = api
    this.enterprise = enterprise
    this.retrySchedule = retrySchedule
  }

  /**
   * Finds the organization and checks that we can create a repository there; or creates it,
   * where GitHub allows that.
   */
  async ensure(
    { login, repository }: EnsureOrganizationInput,
    { signal }: CallContext,
  ): Promise<Organization> {
    requireValidLogin(login)
    const visibility = repository?.visibility ?? 'PRIVATE'
    const { credential } = this.api
    if (credential instanceof AppCredential) await this.checkInstallation(credential, login, signal)
    const viewer = await this.viewer(login, signal)
    if (viewer) this.checkScopes(viewer, visibility)

    const existing = await this.find(login, signal)
    if (existing !== null) {
      if (viewer) await this.checkMembership(viewer, existing, visibility, signal)
      return { outcome: 'existed', id: existing.id, login: existing.login }
    }
    if (viewer && isSameName(viewer.login, login)) {
      return { outcome: 'existed', id: viewer.id, login: viewer.login }
    }
    return this.create(login, viewer, signal)
  }

  /**
   * The token's owner; null for an App, or if GitHub does not report it. Rejects if
   * the credential is invalid.
   */
  async viewer(owner: string, signal: AbortSignal): Promise<Viewer | null> {
    if (this.api.credential instanceof AppCredential) return null
    const response = await this.api.call({
      method: 'GET',
      path: '/user',
      owner,
      action: "identify the token's owner",
      signal,
    })
    if (response.status >= 500) throw toForgeError(response, response.description)
    if (response.status !== 200) return null
    const scopes = response.headers['x-oauth-scopes']
    return {
      ...parseBody(response, ViewerBody),
      // Empty for a classic token without scopes; absent for a fine-grained one.
      scopes: scopes === undefined ? null : new Set(parseScopes(scopes)),
    }
  }

  private async find(login: string, signal: AbortSignal): Promise<OrganizationFacts | null> {
    const response = await this.api.call({
      method: 'GET',
      path: `/orgs/${encodeURIComponent(login)}`,
      owner: login,
      action: `find the organization ${login}`,
      signal,
    })
    if (response.status === 404) return null
    if (response.status !== 200) throw toForgeError(response, response.description)
    return parseBody(response, OrganizationBody)
  }

  private async checkInstallation(app: AppCredential, login: string, signal: AbortSignal): Promise<void> {
    const { permissions, repositorySelection, htmlUrl } = await app.installation(login, signal)
    const missing = ['administration', 'contents'].filter((name) => {
      const level = permissions[name]
      return level !== 'write' && level !== 'admin'
    })
    if (missing.length > 0) {
      const needed = missing.map((name) => `${name}: write`).join(' and ')
      throw new ForgeError(
        'FORBIDDEN',
        `The GitHub App cannot create repositories in ${login}: it needs ${needed}. Give the App that permission, have it accepted at ${htmlUrl}, then retry.`,
      )
    }
    if (repositorySelection === 'selected') {
      throw new ForgeError(
        'FORBIDDEN',
        `The GitHub App is installed in ${login} on selected repositories only, so it could not see one that it creates. Choose “All repositories” at ${htmlUrl}, then retry.`,
      )
    }
  }

  private checkScopes({ scopes }: Viewer, visibility: Visibility): void {
    if (scopes === null || scopes.has('repo')) return
    if (visibility === 'PUBLIC' && scopes.has('public_repo')) return
    const needed = visibility === 'PUBLIC' ? 'public_repo (or repo)' : 'repo'
    throw new ForgeError(
      'FORBIDDEN',
      `The token cannot create ${visibility.toLowerCase()} repositories: it needs the scope ${needed} but has ${[...scopes].join(', ') || 'none'}. Grant it at ${settingsUrl(this.api.endpoints, this.api.credential)}, then retry.`,
    )
  }

  /**
   * Rejects only if GitHub reports the role. A token that cannot read memberships
   * fails at the create instead.
   */
  private async checkMembership(
    viewer: Viewer,
    { login, membersCanCreate }: OrganizationFacts,
    visibility: Visibility,
    signal: AbortSignal,
  ): Promise<void> {
    if (membersCanCreate[visibility] !== false) return
    const response = await this.api.call({
      method: 'GET',
      path: `/user/memberships/orgs/${encodeURIComponent(login)}`,
      owner: login,
      action: `read the role of ${viewer.login} in ${login}`,
      signal,
    })
    if (response.status !== 200 || parseBody(response, MembershipBody).role !== 'member') return
    throw new ForgeError(
      'FORBIDDEN',
      `Members of ${login} are not allowed to create ${visibility.toLowerCase()} repositories, and ${viewer.login} is a member. An owner can allow it at ${this.api.endpoints.web}/organizations/${login}/settings/member_privileges; then retry.`,
    )
  }

  private async create(login: string, viewer: Viewer | null, signal: AbortSignal): Promise<Organization> {
    let failure: ForgeError
    try {
      if (viewer === null) throw this.organizationMissingError(login)
      await (this.enterprise
        ? this.createInEnterprise(this.enterprise, login, viewer, signal)
        : this.createOnServer(login, viewer, signal))
      failure = new ForgeError('TRANSIENT', `GitHub has created ${login} but does not show it yet.`)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof ForgeError) || error.code !== 'TRANSIENT') throw error
      failure = error
    }
    // Created; or the response was lost, and it may exist anyway. Unlike a repository, it need not be ours.
    const created = await pollUntilFound(this.retrySchedule.verifyDelaysMs, signal, () =>
      this.find(login, signal),
    )
    if (created === null) throw failure
    return { outcome: 'created', id: created.id, login: created.login }
  }

  /** Enterprise Server, by a site administrator: docs "Create an organization". */
  private async createOnServer(login: string, viewer: Viewer, signal: AbortSignal): Promise<void> {
    if (!this.api.endpoints.isEnterpriseServer) throw this.organizationMissingError(login)
    const response = await this.api.call({
      method: 'POST',
      path: '/admin/organizations',
      owner: login,
      body: { login, admin: viewer.login },
      action: `create the organization ${login}`,
      signal,
    })
    if (response.status === 201) return
    if (response.status === 403 || response.status === 404) throw this.organizationMissingError(login)
    if (response.status === 422) throw this.organizationMissingError(login, response)
    throw toForgeError(response, response.description)
  }

  /** Enterprise Cloud, by an enterprise owner: GraphQL `createEnterpriseOrganization`. */
  private async createInEnterprise(
    { slug, billingEmail }: EnterpriseSettings,
    login: string,
    viewer: Viewer,
    signal: AbortSignal,
  ): Promise<void> {
    const call = {
      owner: login,
      action: `create the organization ${login} in the enterprise ${slug}`,
      signal,
    }
    const found = await this.api.graphql({
      ...call,
      kind: 'read',
      body: { query: FIND_ENTERPRISE, variables: { slug } },
    })
    if (found.status !== 200) throw toForgeError(found, found.description)
    const enterprise = EnterpriseBody.safeParse(parseJson(found.body))
    if (!enterprise.success) throw this.organizationMissingError(login, found)
    const input = {
      adminLogins: [viewer.login],
      billingEmail,
      enterpriseId: enterprise.data.data.enterprise.id,
      login,
      profileName: login,
    }
    const created = await this.api.graphql({
      ...call,
      kind: 'write',
      body: { query: CREATE_ORGANIZATION, variables: { input } },
    })
    if (created.status !== 200) throw toForgeError(created, created.description)
    if (!CreatedOrganizationBody.safeParse(parseJson(created.body)).success) {
      throw this.organizationMissingError(login, created)
    }
  }

  private organizationMissingError(login: string, response?: ApiResponse): ForgeError {
    const { web } = this.api.endpoints
    const page = this.enterprise
      ? `${web}/enterprises/${this.enterprise.slug}/organizations/new`
      : `${web}/account/organizations/new`
    const quote = response ? quoteErrors(response) : ''
    return new ForgeError(
      'ORG_MISSING',
      `This credential cannot see an organization ${login}, and GitHub does not let it create one${quote}. Create it at ${page}, or have the credential's owner invited to it; then retry.`,
      response && { status: response.status },
    )
  }
}

/** The messages of GraphQL errors, or else the REST API's message. */
function quoteErrors({ body }: ApiResponse): string {
  const { message, errors } = parseErrorBody(body)
  const messages = errors.flatMap((each) => each.message ?? [])
  const text = messages.length > 0 ? messages.join('; ') : message
  return text === '' ? '' : ` (GitHub says: “${toPlainLine(text)}”)`
}

const MembershipBody = z.object({ role: z.string().optional() })

const FIND_ENTERPRISE = 'query ($slug: String!) { enterprise(slug: $slug) { id } }'
const EnterpriseBody = z.object({ data: z.object({ enterprise: z.object({ id: z.string() }) }) })

const CREATE_ORGANIZATION = `mutation ($input: CreateEnterpriseOrganizationInput!) {
  createEnterpriseOrganization(input: $input) { organization { id login } }
}`
const CreatedOrganizationBody = z.object({
  data: z.object({
    createEnterpriseOrganization: z.object({ organization: z.object({ id: z.string() }) }),
  }),
})
