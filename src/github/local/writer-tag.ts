import { createHash, randomBytes } from 'node:crypto'
import { readFile, readlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { hasCode } from './storage-errors.ts'

/*
 * Files in a shared folder say who wrote them, so that what a dead process left behind can be told from what a living
 * one is at. A mark is `place-pid-start-random`:
 *   place   where a pid means something: this machine, since it was started, in this pid namespace (container)
 *   start   when the process began, in clock ticks: a later process with the same pid is another one
 *   random  one writing from another
 */

const WRITER_TAG = /^([0-9a-f]{12})-(\d+)-(\d+)-[0-9a-f]{12}$/

let ownIdentity: Promise<string> | undefined

/** A new mark of this process. */
export async function newWriterTag(): Promise<string> {
  ownIdentity ??= identifyProcess()
  return `${await ownIdentity}-${randomBytes(6).toString('hex')}`
}

/** `unknown`: on another machine or in another container, or this system tells too little, or it is no mark at all. */
export async function writerState(mark: string): Promise<'running' | 'ended' | 'unknown'> {
  const [, place, pid, start] = WRITER_TAG.exec(mark) ?? []
  ownIdentity ??= identifyProcess()
  const [myPlace, myPid, myStart] = (await ownIdentity).split('-')
  if (place !== myPlace) return 'unknown'
  if (pid === myPid) return start === myStart ? 'running' : 'ended'
  if (!isProcessRunning(Number(pid))) return 'ended'
  const stat = await processStat(Number(pid))
  if (stat === null) return 'unknown'
  // Z, X: dead, and only not yet buried by its parent.
  return !'ZX'.includes(stat.state) && stat.start === start ? 'running' : 'ended'
}

async function identifyProcess(): Promise<string> {
  const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')
  const namespace = await readlink('/proc/self/ns/pid').catch(() => '')
  const place = createHash('sha1').update([hostname(), bootId, namespace].join('\n')).digest('hex')
  const start = (await processStat(process.pid))?.start ?? Math.round(performance.timeOrigin)
  return `${place.slice(0, 12)}-${process.pid}-${start}`
}

function isProcessRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return !hasCode(error, 'ESRCH') // EPERM: it is there, and somebody else's
  }
}

/** From proc_pid_stat(5), on Linux. The name may contain anything, so fields are counted after its parenthesis. */
async function processStat(pid: number): Promise<{ state: string; start: string } | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null)
  if (stat === null) return null
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { state: fields[0] ?? '', start: fields[19] ?? '0' }
}
