import { ForgeError } from '../forge-error.ts'

/** The addresses of one GitHub, all derived from the URL of its REST API. */
export interface Endpoints {
  /** Without a trailing slash: `https://api.github.com`, `https://HOST/api/v3`. */
  api: string
  graphql: string
  /** The base of pages and clone URLs: `https://github.com`. */
  web: string
  /**
   * Enterprise Server creates organizations by REST, and limits rates only if its administrator configures
   * it.
   */
  isEnterpriseServer: boolean
}

/** Handles github.com, Enterprise Cloud with data residency (SUBDOMAIN.ghe.com) and Enterprise Server. */
export function endpointsOf(apiUrl: string): Endpoints {
  const api = apiUrl.replace(/\/+$/, '')
  const { protocol, host, hostname, pathname } = new URL(api)
  if (hostname === 'api.github.com') {
    return { api, graphql: `${api}/graphql`, web: 'https://github.com', isEnterpriseServer: false }
  }
  if (/^api\.[^.]+\.ghe\.com$/.test(hostname)) {
    const web = `${protocol}//${host.slice('api.'.length)}`
    return { api, graphql: `${api}/graphql`, web, isEnterpriseServer: false }
  }
  const path = pathname.replace(/\/api\/v3$/, '').replace(/\/$/, '')
  const web = `${protocol}//${host}${path}`
  return { api, graphql: `${web}/api/graphql`, web, isEnterpriseServer: true }
}

/**
 * The URL git uses for a repository: GitHub's own clone URL if its host matches ours (its port may differ);
 * otherwise, behind a proxy that GitHub does not know, a URL below `web`. The credential goes there, so never
 * from https to http.
 */
export function gitUrl({ web }: Endpoints, repository: { cloneUrl: string; fullName: string }): string {
  const cloneUrl = URL.parse(repository.cloneUrl)
  const webUrl = new URL(web)
  const isSameHost =
    cloneUrl !== null &&
    cloneUrl.hostname === webUrl.hostname &&
    (cloneUrl.protocol === 'https:' || cloneUrl.protocol === webUrl.protocol) &&
    cloneUrl.username === ''
  return isSameHost ? cloneUrl.href : `${web}/${repository.fullName}.git`
}

/** The login of an organization or a person. Enterprise Server has had longer ones, and underscores. */
export function checkLogin(login: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/.test(login)) throw invalidNameError('organization', login)
}

export function checkRepositoryName(name: string): void {
  const isValid =
    /^[A-Za-z0-9._-]{1,100}$/.test(name) && !/^\.\.?$/.test(name) && !/\.(git|wiki)$/i.test(name)
  if (!isValid) throw invalidNameError('repository', name)
}

function invalidNameError(kind: string, name: string): ForgeError {
  return new ForgeError('INVALID_NAME', `"${name}" is not a valid ${kind} name.`)
}

/** GitHub compares names without case. */
export function isSameName(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase()
}

export function repositoryPath({ owner, name }: { owner: string; name: string }): string {
  return `/repos/${encodeURIComponent(owner)}/${encodeURIComponent(name)}`
}
