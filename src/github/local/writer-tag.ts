import { createHash, randomBytes } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import { isProcessAlive } from '../../runtime/process-alive.ts'

/*
 * Temporary files in a shared folder are named after their writer, so that files of a dead process can be
 * removed without affecting those of a running one. A tag is `place-pid-process-random`:
 *   place    where the pid is valid: this machine, since its last boot, in this pid namespace (container)
 *   process  distinguishes this process from an earlier one with the same pid
 *   random   distinguishes the files of a process
 */

const WRITER_TAG = /^([0-9a-f]{12})-(\d+)-([0-9a-f]{12})-[0-9a-f]{12}$/
const PLACE = identifyPlace()
const PROCESS = randomId()

/** A new tag of this process. */
export function newWriterTag(): string {
  return `${PLACE}-${process.pid}-${PROCESS}-${randomId()}`
}

/** `unknown`: the writer is on another machine or in another container, or this is not a tag. */
export function writerState(tag: string): 'running' | 'ended' | 'unknown' {
  const [, place, pid, instance] = WRITER_TAG.exec(tag) ?? []
  if (place !== PLACE) return 'unknown'
  const isRunning = Number(pid) === process.pid ? instance === PROCESS : isProcessAlive(Number(pid))
  return isRunning ? 'running' : 'ended'
}

function identifyPlace(): string {
  const bootId = readOrEmpty(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8'))
  const namespace = readOrEmpty(() => readlinkSync('/proc/self/ns/pid'))
  return createHash('sha1').update([hostname(), bootId, namespace].join('\n')).digest('hex').slice(0, 12)
}

/** Only Linux has these files. */
function readOrEmpty(read: () => string): string {
  try {
    return read()
  } catch {
    return ''
  }
}

function randomId(): string {
  return randomBytes(6).toString('hex')
}
