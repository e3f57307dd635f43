import { expect, test } from '@jest/globals'
import { FairSlots } from './fair-slots.ts'

const never = new AbortController().signal
const full = () => new Error('full')

/** Enters, and notes its name when it is let in. */
class Line {
  readonly slots: FairSlots
  readonly entered: string[] = []
  private readonly leaving: (() => void)[] = []

  constructor(size: number, maxWaiting: number) {
    this.slots = new FairSlots(size, maxWaiting, full)
  }

  async enter(name: string, parties: readonly string[], signal = never): Promise<string> {
    const leave = await this.slots.acquire(parties, signal)
    this.entered.push(name)
    this.leaving.push(leave)
    return name
  }

  /** Lets everybody through, one after the other. */
  async drain(): Promise<string[]> {
    await new Promise(setImmediate)
    for (let leave = this.leaving.shift(); leave; leave = this.leaving.shift()) {
      leave()
      await new Promise(setImmediate)
    }
    return this.entered
  }
}

const times = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

test('admits a single caller next, however many of another subject or organization wait', async () => {
  const ways: [string, (n: number) => string[], string[]][] = [
    ['one subject in one organization', () => ['mallory', 'acme'], ['bob', 'globex']],
    ['one subject in many organizations', (n) => ['mallory', `org-${n}`], ['bob', 'globex']],
    ['many subjects of one organization', (n) => [`mallory-${n}`, 'acme'], ['bob', 'globex']],
  ]
  for (const [way, attacker, single] of ways) {
    const line = new Line(1, 8)
    const all = times(9).map((n) => line.enter(`m${n}`, attacker(n)))
    const refused = expect(all[8]).rejects.toThrow('full')
    const bob = line.enter('bob', single)
    const [settled] = await Promise.all([line.drain(), bob, refused])
    expect([way, settled.indexOf('bob')]).toEqual([way, 2])
    // Only the newest had to go.
    expect([way, settled.length]).toEqual([way, 9])
  }
})

test('has room for a single caller, even of the organization that fills the queue', async () => {
  const line = new Line(1, 8)
  const all = times(9).map((n) => line.enter(`m${n}`, ['mallory', 'acme']))
  const refused = expect(all[8]).rejects.toThrow('full')
  const bob = line.enter('bob', ['bob', 'acme'])
  expect(await Promise.all([line.drain(), bob, refused])).toMatchObject([{ length: 9 }, 'bob', undefined])
})

test('treats equal demand equally: no caller is replaced by one of a party with as many', async () => {
  const line = new Line(1, 4)
  const entered = ['a', 'b', 'a', 'b', 'a'].map((name) => line.enter(name, [name, 'acme']))
  await expect(line.enter('b', ['b', 'acme'])).rejects.toThrow('full')
  await expect(line.enter('a', ['a', 'globex'])).rejects.toThrow('full')
  await Promise.all([line.drain(), ...entered])
  expect(line.entered).toEqual(['a', 'b', 'a', 'b', 'a'])
})

test('admits callers of different parties in order of arrival', async () => {
  const line = new Line(2, 4)
  const entered = times(6).map((n) => line.enter(`${n}`, [`subject-${n}`, `org-${n}`]))
  await expect(line.enter('7', ['subject-7', 'org-7'])).rejects.toThrow('full')
  await Promise.all([line.drain(), ...entered])
  expect(line.entered).toEqual(['1', '2', '3', '4', '5', '6'])
})

test('removes an aborted caller from the queue', async () => {
  const line = new Line(1, 1)
  const abort = new AbortController()
  const first = line.enter('1', ['a'])
  const second = line.enter('2', ['a'], abort.signal)
  abort.abort(new Error('gone'))
  await expect(second).rejects.toThrow('gone')
  await expect(line.enter('3', ['a'], abort.signal)).rejects.toThrow('gone')
  const fourth = line.enter('4', ['a'])
  await Promise.all([first, line.drain(), fourth])
  expect(line.entered).toEqual(['1', '4'])
})
