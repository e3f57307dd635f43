import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readlink, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { removeFolder, temporaryFolder } from '../../../test/support/github/git.ts'
import { withTimeout } from '../../../test/support/processes.ts'
import { withFileLock } from './file-lock.ts'
import { newWriterTag } from './writer-tag.ts'

const never = new AbortController().signal

describe('withFileLock', () => {
  let folder: string
  let lock: string

  beforeEach(async () => {
    folder = await temporaryFolder()
    lock = join(folder, 'main.lock')
  })
  afterEach(() => removeFolder(folder))

  test('lets one in at a time, and leaves nothing', async () => {
    expect(await mostAtOnce(20)).toBe(1)
    expect(await readdir(folder)).toEqual([])
  })

  test('takes over from a holder that was killed, and still lets one in at a time', async () => {
    const holder = fork(join(import.meta.dirname, '../../../test/support/github/hold-lock.ts'), [
      lock,
      folder,
    ])
    await withTimeout(once(holder, 'message'), 'the holder has the lock')
    const mark = await readlink(lock)
    holder.kill('SIGKILL')
    await withTimeout(once(holder, 'exit'), 'the holder is dead')
    expect(await readlink(lock)).toBe(mark)

    expect(await mostAtOnce(20)).toBe(1)
    expect(await readdir(folder)).toEqual([])
  })

  test('takes over when those who were taking over have died too', async () => {
    const [place, , start] = (await newWriterTag()).split('-')
    const dead = (n: number) => `${place}-${4_194_305 + n}-${start}-00000000000${n}` // above any pid
    await symlink(dead(1), lock)
    await symlink(dead(2), join(folder, `claim.${dead(1)}`))
    await symlink(dead(3), join(folder, `claim.${dead(2)}`))
    expect(await mostAtOnce(10)).toBe(1)
    expect(await readdir(folder)).toEqual([])
  })

  test('waits for a holder that lives', async () => {
    const entered = Promise.withResolvers<void>()
    const leave = Promise.withResolvers<void>()
    const order: string[] = []
    const first = withFileLock(lock, folder, never, async () => {
      entered.resolve()
      await leave.promise
      order.push('first')
    })
    await withTimeout(entered.promise, 'the first is in')
    const second = withFileLock(lock, folder, never, async () => order.push('second'))
    leave.resolve()
    await Promise.all([first, second])
    expect(order).toEqual(['first', 'second'])
  })

  test("respects a git command's lock, and gives up when aborted", async () => {
    await writeFile(lock, '')
    const abort = new AbortController()
    const waiting = withFileLock(lock, folder, abort.signal, async () => 'entered')
    abort.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    expect(await readdir(folder)).toEqual(['main.lock'])
  })

  test('leaves when the action fails', async () => {
    const failing = withFileLock(lock, folder, never, () => Promise.reject(new Error('no')))
    await expect(failing).rejects.toThrow('no')
    expect(await readdir(folder)).toEqual([])
  })

  async function mostAtOnce(contenders: number): Promise<number> {
    let inside = 0
    let most = 0
    const enter = async () => {
      most = Math.max(most, ++inside)
      await readdir(folder)
      inside--
    }
    await Promise.all(Array.from({ length: contenders }, () => withFileLock(lock, folder, never, enter)))
    return most
  }
})
