import { expect, test } from '@jest/globals'
import { FairSlots } from './fair-slots.ts'

const neverAborted = new AbortController().signal
const full = () => new Error('full')

/** A queue of named callers that records the order of their admission. */
class Line {
  readonly slots: FairSlots
  readonly entered: string[] = []
  private readonly leaving: (() => void)[] = []

  constructor(size: number, maxWaiting: number) {
    this.slots = new FairSlots(size, maxWaiting, full)
  }

  async enter(name: string, parties: readonly string[], signal = neverAborted): Promise<string> {
    const leave = await this.slots.acquire(parties, signal)
    this.entered.push(name)
    this.leaving.push(leave)
    return name
  }

  /** Releases all slots, one after another. Resolves to the order of admission. */
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
  const cases: [string, (n: number) => string[], string[]][] = [
    ['one subject in one organization', () => ['mallory', 'acme'], ['bob', 'globex']],
    ['one subject in many organizations', (n) => ['mallory', `org-${n}`], ['bob', 'globex']],
    ['many subjects of one organization', (n) => [`mallory-${n}`, 'acme'], ['bob', 'globex']],
  ]
  for (const [name, attacker, single] of cases) {
    const line = new Line(1, 8)
    const all = times(9).map((n) => line.enter(`m${n}`, attacker(n)))
    const refused = expect(all[8]).rejects.toThrow('full')
    const bob = line.enter('bob', single)
    const [settled] = await Promise.all([line.drain(), bob, refused])
    expect([name, settled.indexOf('bob')]).toEqual([name, 2])
    // Only the newest was dropped.
    expect([name, settled.length]).toEqual([name, 9])
  }
})

test('has room for a single caller, even of the organization that fills the queue', async () => {
  const line = new Line(1, 8)
  const all = times(9).map((n) => line.enter(`m${n}`, ['mallory', 'acme']))
  const refused = expect(all[8]).rejects.toThrow('full')
  const bob = line.enter('bob', ['bob', 'acme'])
  expect(await Promise.all([line.drain(), bob, refused])).toMatchObject([{ length: 9 }, 'bob', undefined])
})

test('treats equal demand equally: no caller is replaced by one of a party with as many waiting', async () => {
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
