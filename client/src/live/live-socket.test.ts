import { expect, test } from '@jest/globals'
import { backoffMs } from './live-socket.ts'

test('the first attempt follows after 0.3 to 0.5 seconds', () => {
  expect(backoffMs(0, () => 0)).toBe(300)
  expect(backoffMs(0, () => 1)).toBe(500)
})

test('the span doubles with each attempt, up to 30 seconds', () => {
  const longest = [1, 2, 3, 7, 8, 100, 5_000].map((attempt) => backoffMs(attempt, () => 1))
  expect(longest).toEqual([700, 1_100, 1_900, 25_900, 30_300, 30_300, 30_300])
})

test('attempts of many pages are spread over the whole span', () => {
  expect(backoffMs(10, () => 0)).toBe(300)
  expect(backoffMs(10, () => 0.5)).toBe(15_300)
})
