import { describe, expect, test } from '@jest/globals'
import type { DeploymentStatus, DeploymentStep } from '../gql/graphql.ts'
import { STEPS, type StatusChange, stateOfStep, stepTimes } from './steps.ts'

/** One change per second. */
function changes(...list: [DeploymentStep, DeploymentStatus][]): StatusChange[] {
  return list.map(([step, status], index) => ({
    sequence: index + 1,
    step,
    status,
    text: `${step} ${status}`,
    at: at(index),
  }))
}

function at(second: number): string {
  return new Date(Date.UTC(2026, 0, 1, 12, 0, second)).toISOString()
}

describe('the times of the steps', () => {
  test('each runs from the completion of the step before it to its own', () => {
    const times = stepTimes(
      changes(
        ['DEPLOY', 'RUNNING'],
        ['CREATE_ORG', 'RUNNING'],
        ['CREATE_REPO', 'RUNNING'],
        ['PUSH_CONTENTS', 'RUNNING'],
        ['DONE', 'SUCCEEDED'],
      ),
    )
    expect(Object.fromEntries(times)).toEqual({
      CREATE_ORG: { startedAt: at(0), endedAt: at(1) },
      CREATE_REPO: { startedAt: at(1), endedAt: at(2) },
      PUSH_CONTENTS: { startedAt: at(2), endedAt: at(3) },
      DONE: { startedAt: at(3), endedAt: at(4) },
    })
  })

  test('the current step is open', () => {
    const times = stepTimes(changes(['DEPLOY', 'RUNNING'], ['CREATE_ORG', 'RUNNING']))
    expect(times.get('CREATE_REPO')).toEqual({ startedAt: at(1), endedAt: null })
  })

  test('time in the queue does not count', () => {
    const times = stepTimes(changes(['DEPLOY', 'QUEUED'], ['DEPLOY', 'RUNNING'], ['CREATE_ORG', 'RUNNING']))
    expect(times.get('CREATE_ORG')).toEqual({ startedAt: at(1), endedAt: at(2) })
  })

  test('waiting for GitHub counts as part of the step', () => {
    const times = stepTimes(
      changes(['DEPLOY', 'RUNNING'], ['DEPLOY', 'WAITING'], ['DEPLOY', 'RUNNING'], ['CREATE_ORG', 'RUNNING']),
    )
    expect(times.get('CREATE_ORG')).toEqual({ startedAt: at(0), endedAt: at(3) })
  })

  test.each(['FAILED', 'CANCELLED'] as const)('%s ends the step, and a retry starts it again', (status) => {
    const history = changes(
      ['DEPLOY', 'RUNNING'],
      ['CREATE_ORG', 'RUNNING'],
      ['CREATE_ORG', status],
      ['CREATE_ORG', 'QUEUED'],
      ['CREATE_ORG', 'RUNNING'],
    )
    expect(stepTimes(history.slice(0, 3)).get('CREATE_REPO')).toEqual({ startedAt: at(1), endedAt: at(2) })
    expect(stepTimes(history).get('CREATE_REPO')).toEqual({ startedAt: at(4), endedAt: null })
  })

  test('a step that has completed without its own events still ends', () => {
    const times = stepTimes(changes(['DEPLOY', 'RUNNING'], ['CREATE_REPO', 'RUNNING']))
    expect(times.get('CREATE_ORG')).toEqual({ startedAt: at(0), endedAt: at(1) })
    expect(times.get('CREATE_REPO')).toBeUndefined()
  })
})

test('the status describes the step after the completed one', () => {
  const statesAt = (step: DeploymentStep, status: DeploymentStatus) =>
    STEPS.map((each) => stateOfStep(each.step, { step, status }))
  expect(statesAt('CREATE_ORG', 'RUNNING')).toEqual(['done', 'done', 'running', 'pending', 'pending'])
  expect(statesAt('CREATE_REPO', 'FAILED')).toEqual(['done', 'done', 'done', 'failed', 'pending'])
  expect(statesAt('DONE', 'SUCCEEDED')).toEqual(['done', 'done', 'done', 'done', 'done'])
  expect(stateOfStep('DEPLOY', undefined)).toBe('pending')
})
