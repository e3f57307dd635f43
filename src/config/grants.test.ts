import { expect, test } from '@jest/globals'
import { InvalidGrantError, parseGrant, parseRoleMapping } from './grants.ts'

test('a role mapping gives each group a role and its organizations', () => {
  const text = `platform-team=admin; Developers = deployer : Acme , acme-labs;
    staff=viewer;; acme/platform=deployer:*; Contractors=viewer:globex`
  expect(parseRoleMapping(text, ['oidc'])).toEqual(
    new Map([
      ['oidc:platform-team', [{ role: 'admin', orgs: 'all' }]],
      ['oidc:developers', [{ role: 'deployer', orgs: ['acme', 'acme-labs'] }]],
      ['oidc:staff', [{ role: 'viewer', orgs: 'all' }]],
      ['oidc:acme/platform', [{ role: 'deployer', orgs: 'all' }]],
      ['oidc:contractors', [{ role: 'viewer', orgs: ['globex'] }]],
    ]),
  )
})

test('a group that is named twice has both roles', () => {
  expect(parseRoleMapping('devs=viewer; DEVS=deployer:acme', ['oidc'])).toEqual(
    new Map([
      [
        'oidc:devs',
        [
          { role: 'viewer', orgs: 'all' },
          { role: 'deployer', orgs: ['acme'] },
        ],
      ],
    ]),
  )
})

// Each of these would otherwise grant more than intended, or lock everyone out.
test.each([
  ['platform-team', 'has a part that is not GROUP=ROLE: "platform-team"'],
  ['=admin', 'has a part that is not GROUP=ROLE: "=admin"'],
  ['devs=owner', 'has an invalid role for "devs": "owner" is not one of viewer, deployer, admin'],
  [
    'devs=deployer',
    'has an invalid role for "devs": deployer requires organizations; list them, or use * for all',
  ],
  [
    'devs=deployer:',
    'has an invalid role for "devs": deployer requires organizations; list them, or use * for all',
  ],
  [
    'devs=viewer:',
    'has an invalid role for "devs": no organizations follow the colon; list them, or omit the colon for all',
  ],
  ['devs=admin:acme', 'has an invalid role for "devs": admin cannot be limited to organizations'],
  ['devs=deployer:ac me', 'has an invalid role for "devs": "ac me" is not a valid organization name'],
])('a role mapping rejects %s', (text, message) => {
  expect(() => parseRoleMapping(text, ['oidc'])).toThrow(new InvalidGrantError(message))
})

test('with two providers, each group names its own', () => {
  const providers = ['oidc', 'github']
  expect([...parseRoleMapping('OIDC:staff=viewer; github:acme/platform=admin', providers).keys()]).toEqual([
    'oidc:staff',
    'github:acme/platform',
  ])
  expect(() => parseRoleMapping('staff=viewer', providers)).toThrow('write oidc:staff or github:staff')
})

test('a token has one role and its organizations', () => {
  expect(parseGrant('Deployer', ['ACME', 'acme-labs'])).toEqual({
    role: 'deployer',
    orgs: ['acme', 'acme-labs'],
  })
  expect(parseGrant('viewer', undefined)).toEqual({ role: 'viewer', orgs: 'all' })
  expect(parseGrant('deployer', ['acme', '*'])).toEqual({ role: 'deployer', orgs: 'all' })
  expect(() => parseGrant('deployer', [])).toThrow('deployer requires organizations')
})
