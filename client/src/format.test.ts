import { expect, test } from '@jest/globals'
import {
  formatBytes,
  formatCountdown,
  formatDuration,
  formatFileCount,
  formatList,
  formatRelativeTime,
} from './format.ts'

test.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.0 kB'],
  [999_949, '999.9 kB'],
  [999_950, '1.0 MB'],
  [31_457_280, '31.5 MB'],
])('formats %d bytes as %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text)
})

test.each([
  [-5, '0 ms'],
  [38.4, '38 ms'],
  [999.4, '999 ms'],
  [999.5, '1.0 s'],
  [4_249, '4.2 s'],
  [59_949, '59.9 s'],
  [59_950, '1 min 00 s'],
  [185_000, '3 min 05 s'],
  [3_600_000, '60 min 00 s'],
])('formats a duration of %d ms as %s', (durationMs, text) => {
  expect(formatDuration(durationMs)).toBe(text)
})

test.each([
  [-1, '0 s'],
  [1, '1 s'],
  [59_000, '59 s'],
  [59_001, '1 min 00 s'],
])('counts down %d ms as %s', (remainingMs, text) => {
  expect(formatCountdown(remainingMs)).toBe(text)
})

test.each([
  [-60, 'just now'],
  [44, 'just now'],
  [45, '1 min. ago'],
  [44 * 60, '44 min. ago'],
  [45 * 60, '1 hr. ago'],
  [21 * 3600, '21 hr. ago'],
  [22 * 3600, 'yesterday'],
  [72 * 3600, '3 days ago'],
])('formats a time %d seconds ago as %s', (seconds, text) => {
  const nowMs = Date.parse('2026-07-28T12:00:00Z')
  expect(formatRelativeTime(new Date(nowMs - seconds * 1000).toISOString(), nowMs)).toBe(text)
})

test('uses the singular for one file', () => {
  expect([0, 1, 2].map(formatFileCount)).toEqual(['0 files', '1 file', '2 files'])
})

test('joins a list as in a sentence', () => {
  expect(formatList(['acme'])).toBe('acme')
  expect(formatList(['acme', 'labs', 'tools'])).toBe('acme, labs, and tools')
})
