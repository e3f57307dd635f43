import { ForgeError } from '../forge-error.ts'
import type { CallContext, EnsureOrganizationInput, Organization, Visibility } from '../github-client.ts'
import { type OrganizationFacts, organizationOf, type Viewer, viewerOf } from './accounts.ts'
import { AppCredential } from './credential.ts'
import { checkLogin, isSameName } from './endpoints.ts'
import { type ApiResponse, type GitHubApi, settingsUrl } from './github-api.ts'
import { isObject, toForgeError, toPlainLine } from './github-errors.ts'
import { pollUntilFound, type RetrySchedule } from './retry-schedule.ts'

/** Where organizations can be created on Enterprise Cloud. */
export interface EnterpriseSettings {
  slug: string
  billingEmail: string
}

/** Accounts that repositories are put in: organizations, and the token's own account. */
export class Organizations {
  private readonly api: GitHubApi
  private readonly enterprise: EnterpriseSettings | undefined
  private readonly retrySchedule: RetrySchedule

  constructor(api: GitHubApi, enterprise: EnterpriseSettings | undefined, patience: RetrySchedule) {
    this.api = api
    this.enterprise = enterprise
    this.retrySchedule = patience
  }

  /** Finds it, having looked whether we may create a repository there; or creates it where that can be done. */
  async ensure(
    { login, repository }: EnsureOrganizationInput,
    { signal }: CallContext,
  ): Promise<Organization> {
    checkLogin(login)
    const visibility = repository?.visibility ?? 'PRIVATE'
    const { credential } = this.api
    if (credential instanceof AppCredential) await this.checkInstallation(credential, login, signal)
    const viewer = await this.viewer(login, signal)
    if (viewer) this.checkScopes(viewer, visibility)

    const found = await this.find(login, signal)
    if (found !== null) {
      if (viewer) await this.checkMembership(viewer, found, visibility, signal)
      return { outcome: 'existed', id: found.id, login: found.login }
    }
    if (viewer && isSameName(viewer.login, login)) {
      return { outcome: 'existed', id: viewer.id, login: viewer.login }
    }
    return this.create(login, viewer, signal)
  }

  /** Whose token it is; null for an App, which is nobody, and where GitHub does not tell. Rejects a bad credential. */
  async viewer(owner: string, signal: AbortSignal): Promise<Viewer | null> {
    if (this.api.credential instanceof AppCredential) return null
    const answer = await this.api.call({
      method: 'GET',
      path: '/user',
      owner,
      action: 'tell who we are',
      signal,
    })
    if (answer.status >= 500) throw toForgeError(answer, answer.description)
    return answer.status === 200 ? viewerOf(answer) : null
  }

  private async find(login: string, signal: AbortSignal): Promise<OrganizationFacts | null> {
    const path = `/orgs/${encodeURIComponent(login)}`
    const what = `look for the organization ${login}`
    const answer = await this.api.call({ method: 'GET', path, owner: login, action: what, signal })
    if (answer.status === 404) return null
    if (answer.status !== 200) throw toForgeError(answer, answer.description)
    return organizationOf(answer)
  }

  private async checkInstallation(app: AppCredential, login: string, signal: AbortSignal): Promise<void> {
    const installation = await app.installation(login, signal)
    const { permissions, repositorySelection, htmlUrl } = installation
    const missing = ['administration', 'contents'].filter((each) => {
      const level = permissions[each]
      return level !== 'write' && level !== 'admin'
    })
    if (missing.length > 0) {
      const names = missing.map((each) => `${each}: write`).join(' and ')
      throw new ForgeError(
        'FORBIDDEN',
        `The GitHub App may not create repositories in ${login}: it needs ${names}. Give the App that permission, have it accepted at ${htmlUrl}, then retry.`,
      )
    }
    if (repositorySelection === 'selected') {
      throw new ForgeError(
        'FORBIDDEN',
        `The GitHub App is installed in ${login} on selected repositories, so it cannot see one that it creates. Choose “All repositories” at ${htmlUrl}, then retry.`,
      )
    }
  }

  /** Only classic tokens have scopes that GitHub tells. */
  private checkScopes({ scopes }: Viewer, visibility: Visibility): void {
    if (scopes === null || scopes.has('repo') || (visibility === 'PUBLIC' && scopes.has('public_repo')))
      return
    const wanted = visibility === 'PUBLIC' ? 'public_repo (or repo)' : 'repo'
    throw new ForgeError(
      'FORBIDDEN',
      `The token may not create ${visibility === 'PUBLIC' ? 'public' : 'private'} repositories: it needs the scope ${wanted}, and has ${[...scopes].filter(Boolean).join(', ') || 'none'}. Grant it at ${this.settingsUrl()}, then retry.`,
    )
  }

  /** Decides only on what GitHub tells for certain; whoever may not see memberships learns at the create. */
  private async checkMembership(
    viewer: Viewer,
    organization: OrganizationFacts,
    visibility: Visibility,
    signal: AbortSignal,
  ): Promise<void> {
    if (organization.membersCanCreate[visibility] !== false) return
    const { login } = organization
    const path = `/user/memberships/orgs/${encodeURIComponent(login)}`
    const what = `tell our role in ${login}`
    const answer = await this.api.call({ method: 'GET', path, owner: login, action: what, signal })
    if (answer.status !== 200 || !isObject(answer.json)) return
    if (answer.json.role !== 'member') return
    throw new ForgeError(
      'FORBIDDEN',
      `Members of ${login} may not create ${visibility === 'PUBLIC' ? 'public' : 'private'} repositories, and ${viewer.login} is a member. An owner can allow it at ${this.api.endpoints.web}/organizations/${login}/settings/member_privileges; then retry.`,
    )
  }

  private async create(login: string, viewer: Viewer | null, signal: AbortSignal): Promise<Organization> {
    let failure: ForgeError
    try {
      const refused = this.enterprise
        ? await this.createInEnterprise(this.enterprise, login, viewer, signal)
        : await this.createOnServer(login, viewer, signal)
      if (refused !== null) throw refused
      failure = new ForgeError('TRANSIENT', `GitHub has created ${login} and does not show it yet.`)
    } catch (error) {
      signal.throwIfAborted()
      if (!(error instanceof ForgeError) || error.code !== 'TRANSIENT') throw error
      failure = error
    }
    // Created; or the answer was lost, and then it may have been. An organization is anybody's who may use it.
    const created = await pollUntilFound(this.retrySchedule.verifyDelaysMs, signal, () =>
      this.find(login, signal),
    )
    if (created === null) throw failure
    return { outcome: 'created', id: created.id, login: created.login }
  }

  /** Enterprise Server, by a site administrator: docs "Create an organization". Resolves to why not, or to null. */
  private async createOnServer(
    login: string,
    viewer: Viewer | null,
    signal: AbortSignal,
  ): Promise<ForgeError | null> {
    if (!this.api.endpoints.isEnterpriseServer || viewer === null) return this.organizationMissingError(login)
    const answer = await this.api.call({
      method: 'POST',
      path: '/admin/organizations',
      owner: login,
      body: { login, admin: viewer.login },
      action: `create the organization ${login}`,
      signal,
    })
    if (answer.status === 201) return null
    if (answer.status === 403 || answer.status === 404) return this.organizationMissingError(login)
    return answer.status === 422
      ? this.organizationMissingError(login, answer)
      : toForgeError(answer, answer.description)
  }

  /** Enterprise Cloud, by an enterprise owner: GraphQL `createEnterpriseOrganization`. */
  private async createInEnterprise(
    { slug, billingEmail }: EnterpriseSettings,
    login: string,
    viewer: Viewer | null,
    signal: AbortSignal,
  ): Promise<ForgeError | null> {
    if (viewer === null) return this.organizationMissingError(login)
    const what = `create the organization ${login} in the enterprise ${slug}`
    const found = await this.api.graphql(
      { owner: login, action: what, signal, body: { query: FIND_ENTERPRISE, variables: { slug } } },
      false,
    )
    if (found.status !== 200) return toForgeError(found, found.description)
    const enterpriseId = fieldAt(found.json, 'data', 'enterprise', 'id')
    if (typeof enterpriseId !== 'string') return this.organizationMissingError(login, found)
    const input = {
      adminLogins: [viewer.login],
      billingEmail,
      enterpriseId,
      login,
      profileName: login,
    }
    const answer = await this.api.graphql(
      { owner: login, action: what, signal, body: { query: CREATE_ORGANIZATION, variables: { input } } },
      true,
    )
    if (answer.status !== 200) return toForgeError(answer, answer.description)
    const id = fieldAt(answer.json, 'data', 'createEnterpriseOrganization', 'organization', 'id')
    return typeof id === 'string' ? null : this.organizationMissingError(login, answer)
  }

  private organizationMissingError(login: string, answer?: ApiResponse): ForgeError {
    const { web } = this.api.endpoints
    const page = this.enterprise
      ? `${web}/enterprises/${this.enterprise.slug}/organizations/new`
      : `${web}/account/organizations/new`
    const messages = answer ? graphqlMessages(answer.json) : []
    const told = messages.length > 0 ? ` (GitHub says: “${toPlainLine(messages.join('; '))}”)` : ''
    return new ForgeError(
      'ORG_MISSING',
      `There is no organization ${login} that this credential can see, and GitHub does not let it create one${told}. Create it at ${page}, or have the credential's owner invited to it; then retry.`,
      answer && { status: answer.status },
    )
  }

  private settingsUrl(): string {
    return settingsUrl(this.api.endpoints, this.api.credential)
  }
}

export const FIND_ENTERPRISE = 'query ($slug: String!) { enterprise(slug: $slug) { id } }'

export const CREATE_ORGANIZATION = `mutation ($input: CreateEnterpriseOrganizationInput!) {
  createEnterpriseOrganization(input: $input) { organization { id login } }
}`

function graphqlMessages(json: unknown): string[] {
  const errors = isObject(json) && Array.isArray(json.errors) ? json.errors.slice(0, 5) : []
  const messages = errors.flatMap((each) =>
    isObject(each) && typeof each.message === 'string' ? [each.message] : [],
  )
  return messages.length > 0 || !isObject(json) || typeof json.message !== 'string'
    ? messages
    : [json.message]
}

function fieldAt(json: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>((value, name) => (isObject(value) ? value[name] : undefined), json)
}
