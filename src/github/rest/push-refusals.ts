import { GitHubError } from '../github-error.ts'
import { plain } from './answers.ts'
import type { PushReport } from './receive-pack.ts'

/**
 * Why GitHub declined a push, from what it says to people: there is no other way. It decides only what a person is told;
 * that the push was declined is known from the report. Texts: GitHub's docs on GH001 and GH013, and users' reports.
 */
export function explainRefusal(
  report: PushReport,
  repository: string,
  scrub: (text: string) => string,
): GitHubError {
  const told = scrub(`${report.messages}\n${report.unpack}\n${report.ref}`)
  const quoted = `GitHub says: “${plain(quotable(report, scrub))}”.`
  if (/GH001\b|exceeds GitHub'?s file size limit|pack exceeds maximum/i.test(told)) {
    return new GitHubError(
      'TOO_LARGE',
      `A file, or all of it, is larger than GitHub takes (100 MB a file, 2 GB a push). ${quoted} Leave it out, or put it elsewhere.`,
    )
  }
  if (/workflow/i.test(told) && /scope|permission/i.test(told)) {
    return new GitHubError(
      'PUSH_REJECTED',
      `The contents have files in .github/workflows, which this credential may not push to ${repository}. Give a classic token the scope workflow, or a fine-grained token or App the permission Workflows: write; then retry. ${quoted}`,
      { reason: 'workflow-scope' },
    )
  }
  if (/GH0\d\d\b|rule violations?|protected branch/i.test(told)) {
    return new GitHubError(
      'PUSH_REJECTED',
      `A rule of ${repository} or of its organization does not allow this push. ${quoted} Mend the contents, or have the rule changed or bypassed for this credential; then retry.`,
      { reason: 'rule-violation' },
    )
  }
  if (report.unpack !== 'ok') {
    return new GitHubError(
      'PUSH_REJECTED',
      `GitHub could not take the contents for ${repository} in. ${quoted} Retry; if it happens again, report it.`,
      { reason: 'bad-objects' },
    )
  }
  return new GitHubError(
    'PUSH_REJECTED',
    `A hook of ${repository} or of its organization declined the push. ${quoted} Mend what it names, then retry.`,
    { reason: 'declined' },
  )
}

function quotable({ messages, unpack, ref }: PushReport, scrub: (text: string) => string): string {
  const reasons = [messages, unpack === 'ok' ? '' : unpack, ref === 'ok' ? '' : ref]
  return scrub(reasons.filter((each) => each.trim() !== '').join(' '))
}
