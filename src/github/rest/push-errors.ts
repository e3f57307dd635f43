import { stripVTControlCharacters } from 'node:util'
import { ForgeError, type ForgeErrorCode } from '../forge-error.ts'
import type { PushReport } from './git-wire.ts'
import { toPlainLine, truncate } from './github-errors.ts'

export interface RejectedPush {
  report: PushReport
  /** For people: `acme/site`. */
  repository: string
  /** Where git pushes to. */
  url: string
  /** The base of GitHub's pages. */
  web: string
  /** Removes our own secrets from GitHub's message. */
  redact(text: string): string
}

interface Classification {
  code: ForgeErrorCode
  /** What happened, then what to do about it. A retry pushes the same contents. */
  advice: string
}

/** GitHub lists every secret it finds, each with a path and a URL; the log contains the full text. */
const MAX_QUOTE_LENGTH = 6_000
const MAX_QUOTED_LINE_LENGTH = 1_000

/**
 * Why GitHub declined a push, as far as its messages to people tell, the only source. They determine only the
 * error's message and whether a retry can help; that the push was declined follows from the report itself.
 * Sources: GitHub's docs on GH001, GH007 and GH013, and users' reports.
 */
export function toPushError(push: RejectedPush): ForgeError {
  const text = rejectionText(push)
  const { code, advice } = classify(text, push)
  const quote = toPlainLine(push.redact(shorten(text.split('\n'))), MAX_QUOTE_LENGTH)
  return new ForgeError(code, `${advice} GitHub says: “${quote}”.`)
}

/** GitHub's full text, one message per line, without escape codes and decoration. */
export function rejectionText({ report: { messages, unpack, ref }, redact }: RejectedPush): string {
  const texts = [messages, unpack === 'ok' ? '' : unpack, ref === 'ok' ? '' : ref]
  return redact(stripVTControlCharacters(texts.join('\n')))
    .split(/[\r\n]+/)
    .map((line) =>
      line
        .replace(/[\p{Cc}\p{Cf}\s]+/gu, ' ')
        .trim()
        .replace(/^(remote:\s*)+/, '')
        // `—— GitHub Personal Access Token ————`
        .replace(/^[-–—─━=]{2,}\s+|\s+[-–—─━=]{2,}$/gu, ''),
    )
    .filter((line) => /[\p{L}\p{N}]/u.test(line))
    .join('\n')
}

/**
 * Keeps the lines that fit, preferring the first line and those with a URL or a path:
 * what to allow, and where.
 */
function shorten(lines: readonly string[]): string {
  const rank = (index: number) => (index === 0 || /https?:\/\/|\bpath:/i.test(lines[index] ?? '') ? 0 : 1)
  const kept = new Set<number>()
  const omission = ' … (the rest is in the log)'
  let remaining = MAX_QUOTE_LENGTH - omission.length
  for (const index of [...lines.keys()].sort((a, b) => rank(a) - rank(b) || a - b)) {
    const length = Math.min(lines[index]?.length ?? 0, MAX_QUOTED_LINE_LENGTH) + 1
    if (length > remaining) continue
    remaining -= length
    kept.add(index)
  }
  const text = lines
    .filter((_, index) => kept.has(index))
    .map((line) => truncate(line, MAX_QUOTED_LINE_LENGTH))
  return text.join(' ') + (kept.size < lines.length ? omission : '')
}

function classify(text: string, { report, repository, url, web }: RejectedPush): Classification {
  // Only an error's code counts: a warning may have one too, and a path may look like one.
  const number = /^(?:error: )?GH(\d{3})\b/m.exec(text)?.[1]
  if (number === '001' || /exceeds GitHub'?s file size limit|pack exceeds maximum/i.test(text)) {
    return {
      code: 'TOO_LARGE',
      advice:
        'A file, or the whole push, exceeds what GitHub accepts (100 MB per file, 2 GB per push). Start a new deployment without it, or store it elsewhere.',
    }
  }
  if (/refusing to allow/i.test(text) && /create or update .{0,500}workflow/i.test(text)) {
    return {
      code: 'PUSH_REJECTED',
      advice: `The contents include files in .github/workflows, which this credential cannot push to ${repository}. Give a classic token the scope workflow, or a fine-grained token or App the permission Workflows: write; then retry.`,
    }
  }
  if (number === '002' || number === '005') {
    return {
      code: 'INVALID_NAME',
      advice: 'GitHub does not accept this branch name. Start a new deployment with another branch.',
    }
  }
  if (number === '007') {
    return {
      code: 'PUSH_REJECTED',
      advice: `The settings of a GitHub account block commits that expose its email address. Its owner can allow them at ${web}/settings/emails; then retry.`,
    }
  }
  if (number === '008') {
    return {
      code: 'PUSH_REJECTED',
      advice: `The contents include Git LFS pointers to objects that ${repository} does not have. Upload these objects (git lfs push --object-id ${url} <object id>), then retry; or start a new deployment with the files themselves instead of the pointers.`,
    }
  }
  if (number === '009' && /\bLFS\b/.test(text)) {
    return {
      code: 'PUSH_REJECTED',
      advice: `GitHub could not check the Git LFS objects of ${repository}. Retry later; if it happens again, ask GitHub Support.`,
    }
  }
  if (number === '009' || /cannot contain secrets|secrets? detected/i.test(text)) {
    return {
      code: 'PUSH_REJECTED',
      advice: `GitHub found what look like secrets in the contents and does not accept them in ${repository}. If they may be published, allow each one at the URL that GitHub gives, then retry. Otherwise revoke them and start a new deployment without them.`,
    }
  }
  if (
    (number !== undefined && ['003', '006', '013', '014'].includes(number)) ||
    /rule violations?|protected branch/i.test(text)
  ) {
    return {
      code: 'PUSH_REJECTED',
      advice: `A rule of ${repository} or its organization blocks this push. Have the rule changed, or bypassed for this credential, then retry; or start a new deployment that follows the rule.`,
    }
  }
  if (report.unpack !== 'ok') {
    return {
      code: 'PUSH_REJECTED',
      advice: `GitHub could not store the contents of ${repository}. Retry; if it happens again, report it.`,
    }
  }
  const decliner = number === undefined ? `A hook of ${repository} or its organization` : 'GitHub'
  return {
    code: 'PUSH_REJECTED',
    advice: `${decliner} declined the push to ${repository}. If the cause is outside the contents, have it removed, then retry; otherwise start a new deployment with other contents.`,
  }
}
