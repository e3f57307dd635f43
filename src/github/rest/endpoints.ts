import { ForgeError } from '../forge-error.ts'

/** Where a GitHub is, all from the address of its REST API. */
export interface Endpoints {
  /** Without a slash at the end: `https://api.github.com`, `https://HOST/api/v3`. */
  api: string
  graphql: string
  /** What pages and clone URLs begin with: `https://github.com`. */
  web: string
  /** Enterprise Server creates organizations by REST, and has no rate limits unless its administrator sets some. */
  isEnterpriseServer: boolean
}

/** The three kinds of address: github.com, Enterprise Cloud with data residency (SUBDOMAIN.ghe.com), Enterprise Server. */
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
 * Where git finds a repository: as GitHub says, when that is the same GitHub (its API may be on another port or on
 * `api.`); else, behind a proxy that GitHub does not know of, below the address that we reach it by. The credential
 * goes there, so never from https to http.
 */
export function gitUrl({ web }: Endpoints, repository: { cloneUrl: string; fullName: string }): string {
  const told = URL.parse(repository.cloneUrl)
  const ours = new URL(web)
  const isSame =
    told !== null &&
    told.hostname === ours.hostname &&
    (told.protocol === 'https:' || told.protocol === ours.protocol) &&
    told.username === ''
  return isSame ? told.href : `${web}/${repository.fullName}.git`
}

/** A login of an organization or a person. Enterprise Server has had longer ones, and underscores. */
export function checkLogin(login: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/.test(login)) throw invalidNameError('an organization', login)
}

export function checkRepositoryName(name: string): void {
  const isValid =
    /^[A-Za-z0-9._-]{1,100}$/.test(name) && !/^\.\.?$/.test(name) && !/\.(git|wiki)$/i.test(name)
  if (!isValid) throw invalidNameError('a repository', name)
}

/** As GitHub compares names. */
export function isSameName(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase()
}

export function repositoryPath({ owner, name }: { owner: string; name: string }): string {
  return `/repos/${encodeURIComponent(owner)}/${encodeURIComponent(name)}`
}

function invalidNameError(what: string, name: string): ForgeError {
  return new ForgeError('INVALID_NAME', `"${name}" cannot be the name of ${what}.`)
}
