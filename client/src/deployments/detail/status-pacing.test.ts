import { expect, test } from '@jest/globals'
import type { StatusChange } from '../steps.ts'
import { firstToDisplay, nextToDisplay, remainingTextMs } from './status-pacing.ts'

function changes(...texts: string[]): [StatusChange, ...StatusChange[]] {
  const list = texts.map(
    (text, index): StatusChange => ({
      sequence: index + 1,
      step: 'DEPLOY',
      status: 'RUNNING',
      text,
      at: '2026-01-01T12:00:00Z',
    }),
  )
  return list as [StatusChange, ...StatusChange[]]
}

test('displays every text in order if the deployment was seen from its start', () => {
  const all = changes('Creating org', 'Creating repo', 'Pushing contents', 'Done!')
  const displayed: string[] = []
  for (let next = firstToDisplay(all, true); next; next = nextToDisplay(all, next)) displayed.push(next.text)
  expect(displayed).toEqual(['Creating org', 'Creating repo', 'Pushing contents', 'Done!'])
})

test('starts with the latest status otherwise', () => {
  const all = changes('Creating org', 'Creating repo')
  expect(firstToDisplay(all, false)?.text).toBe('Creating repo')
  expect(firstToDisplay([], false)).toBeUndefined()
  expect(firstToDisplay([], true)).toBeUndefined()
})

test('skips repeats of a text, but ends with the latest status', () => {
  const [first, , , fourth] = changes('Pushing contents', 'Pushing contents', 'Pushing contents', 'Done!')
  const all = changes('Pushing contents', 'Pushing contents', 'Pushing contents', 'Done!')
  expect(nextToDisplay(all, first)).toEqual(fourth)
  expect(nextToDisplay(all.slice(0, 3), first)?.sequence).toBe(3)
  expect(nextToDisplay(all, fourth as StatusChange)).toBeUndefined()
})

test('a text stays for 350 ms, unless the next one is the same', () => {
  const [org, repo] = changes('Creating org', 'Creating repo') as [StatusChange, StatusChange]
  expect(remainingTextMs(org, repo, 0)).toBe(350)
  expect(remainingTextMs(org, repo, 200)).toBe(150)
  expect(remainingTextMs(org, repo, 1_000)).toBe(0)
  expect(remainingTextMs(org, { ...repo, text: org.text }, 0)).toBe(0)
})
