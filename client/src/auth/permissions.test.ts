import { describe, expect, test } from '@jest/globals'
import type { Me } from './auth.ts'
import { canDeploy, canDeployTo, canManage } from './permissions.ts'

const alice: Me = {
  __typename: 'Me',
  id: 'a1',
  name: 'alice',
  role: 'DEPLOYER',
  sees: ['acme'],
  deploysTo: ['acme'],
  isSignedIn: true,
  expiresAt: null,
}
const byAlice = { org: 'acme', requestedBy: 'alice', requestedById: 'a1' }

test('two people with the same name cannot manage each other’s deployments', () => {
  expect(canManage(alice, byAlice)).toBe(true)
  expect(canManage({ ...alice, id: 'b2' }, byAlice)).toBe(false)
})

describe('a deployer', () => {
  test('cannot manage their own deployments in an organization they no longer deploy to', () => {
    expect(canManage(alice, { ...byAlice, org: 'globex' })).toBe(false)
  })

  test('cannot manage a deployment without a requester', () => {
    expect(canManage(alice, { org: 'acme', requestedById: null })).toBe(false)
  })

  test('can deploy to their organizations, in any case', () => {
    expect(canDeploy(alice)).toBe(true)
    expect(canDeployTo(alice, 'ACME')).toBe(true)
    expect(canDeployTo(alice, 'globex')).toBe(false)
    expect(canDeployTo({ ...alice, deploysTo: null }, 'globex')).toBe(true)
  })
})

test('an admin can manage every deployment', () => {
  const admin: Me = { ...alice, id: 'c3', role: 'ADMIN', deploysTo: null }
  expect(canManage(admin, byAlice)).toBe(true)
})

test('a viewer can neither deploy nor manage their earlier deployments', () => {
  const viewer: Me = { ...alice, role: 'VIEWER', deploysTo: [] }
  expect(canDeploy(viewer)).toBe(false)
  expect(canManage(viewer, byAlice)).toBe(false)
})

test('everything is offered until the server has identified the user', () => {
  expect(canDeploy(null)).toBe(true)
  expect(canDeployTo(null, 'acme')).toBe(true)
  expect(canManage(null, byAlice)).toBe(true)
})
