/** The addresses of one GitHub instance, derived from the URL of its REST API. */
export interface Endpoints {
  /** Without a trailing slash: `https://api.github.com`, `https://HOST/api/v3`. */
  api: string
  graphql: string
  /** The base of pages and clone URLs: `https://github.com`. */
  web: string
  /**
   * Enterprise Server creates organizations by REST, and limits rates only if its
   * administrator configures it.
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
 * The URL that git uses for a repository: GitHub's own clone URL if its host is that of `web` (the port may
 * differ); otherwise, behind a proxy that GitHub does not know, a URL below `web`. The credential is sent
 * there, so never from https to http.
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

/** GitHub's names are case-insensitive. */
export function isSameName(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase()
}

export function repositoryPath({ owner, name }: { owner: string; name: string }): string {
  return `/repos/${encodeURIComponent(owner)}/${encodeURIComponent(name)}`
}
