import { GitHubError } from '../github-error.ts'

/** A login of an organization or a person. Enterprise Server has had longer ones, and underscores. */
export function checkLogin(login: string): void {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/.test(login)) throw invalid('an organization', login)
}

export function checkRepositoryName(name: string): void {
  const isValid =
    /^[A-Za-z0-9._-]{1,100}$/.test(name) && !/^\.\.?$/.test(name) && !/\.(git|wiki)$/i.test(name)
  if (!isValid) throw invalid('a repository', name)
}

/** As GitHub compares names. */
export function isSameName(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase()
}

export function repositoryPath({ owner, name }: { owner: string; name: string }): string {
  return `/repos/${encodeURIComponent(owner)}/${encodeURIComponent(name)}`
}

function invalid(what: string, name: string): GitHubError {
  return new GitHubError('INVALID_NAME', `"${name}" cannot be the name of ${what}.`)
}
