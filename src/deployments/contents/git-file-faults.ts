/** A line of 2,048 bytes is an error to `git fsck` since 2.38.3 (gitattributesLineLength). */
const MAX_ATTRIBUTES_LINE_BYTES = 2047
/** So much of a .gitmodules is looked at. */
const MODULES_BYTES = 1024 * 1024

/**
 * What git's own files may not say, in whatever folder they are: forges that check pushes (receive.fsckObjects) refuse
 * the whole commit for it. Does NOT find what is hidden behind config syntax such as line continuations.
 */
export function gitFileFaults(path: string, content: Uint8Array): string[] {
  // Nearly every file ends this here.
  if (path.charCodeAt(path.lastIndexOf('/') + 1) !== 0x2e) return []
  const name = path.slice(path.lastIndexOf('/') + 1).toLowerCase()
  if (name === '.gitattributes') return attributesFaults(content)
  if (name === '.gitmodules')
    return modulesFaults(Buffer.from(content.subarray(0, MODULES_BYTES)).toString('latin1'))
  return []
}

function attributesFaults(content: Uint8Array): string[] {
  // From the start of a line to the last line end that is near enough: what lies between cannot be too long.
  for (let start = 0, end = 0; start + MAX_ATTRIBUTES_LINE_BYTES < content.length; start = end + 1) {
    end = content.lastIndexOf(0x0a, start + MAX_ATTRIBUTES_LINE_BYTES)
    if (end < start) {
      return [
        `must not have lines of more than ${MAX_ATTRIBUTES_LINE_BYTES} bytes, which git refuses in .gitattributes`,
      ]
    }
  }
  return []
}

/** gitmodulesName, gitmodulesUrl, gitmodulesPath, gitmodulesUpdate: names and values that would run or overwrite something. */
function modulesFaults(text: string): string[] {
  const reasons: string[] = []
  for (const [, name = ''] of text.matchAll(/^[ \t]*\[submodule[ \t]+"([^"\n]*)"/gim)) {
    if (name === '' || name.split(/[/\\]/).includes('..')) {
      reasons.push('must not name a submodule "" or with ".." in it')
    }
  }
  if (/^[ \t]*(?:url|path)[ \t]*=[ \t]*"?-/im.test(text)) {
    reasons.push('must not give a submodule a url or path that begins with "-"')
  }
  if (/^[ \t]*update[ \t]*=[ \t]*"?!/im.test(text)) {
    reasons.push('must not give a submodule an update command')
  }
  return [...new Set(reasons)]
}
