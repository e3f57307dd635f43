import { expect, test } from '@jest/globals'
import { parseGrant, parseRoleMapping } from './role-mapping.ts'

test('reads for each group a role and its organizations', () => {
  const text = `platform-team=admin; Developers = deployer : Acme , acme-labs;
    staff=viewer;; acme/platform=deployer:*; Contractors=viewer:globex`
  expect(parseRoleMapping(text)).toEqual(
    new Map([
      ['platform-team', [{ role: 'admin', orgs: 'all' }]],
      ['developers', [{ role: 'deployer', orgs: ['acme', 'acme-labs'] }]],
      ['staff', [{ role: 'viewer', orgs: 'all' }]],
      ['acme/platform', [{ role: 'deployer', orgs: 'all' }]],
      ['contractors', [{ role: 'viewer', orgs: ['globex'] }]],
    ]),
  )
})

test('a group that is named twice has both', () => {
  expect(parseRoleMapping('devs=viewer; DEVS=deployer:acme')).toEqual(
    new Map([
      [
        'devs',
        [
          { role: 'viewer', orgs: 'all' },
          { role: 'deployer', orgs: ['acme'] },
        ],
      ],
    ]),
  )
})

// Each of these would otherwise give somebody more than was meant, or lock everybody out.
test.each([
  ['platform-team', 'has a part that is not GROUP=ROLE: "platform-team"'],
  ['=admin', 'has a part that is not GROUP=ROLE: "=admin"'],
  ['devs=owner', 'says of "devs" that the role is "owner"; it must be one of viewer, deployer, admin'],
  [
    'devs=deployer',
    'says of "devs" that a deployer is of no organization; name those that it deploys to, or * for all',
  ],
  [
    'devs=deployer:',
    'says of "devs" that a deployer is of no organization; name those that it deploys to, or * for all',
  ],
  [
    'devs=viewer:',
    'says of "devs" that it has no organizations behind the colon; name them, or leave the colon out for all',
  ],
  ['devs=admin:acme', 'says of "devs" that an admin is of some organizations; admins are of all'],
  [
    'devs=deployer:ac me',
    'says of "devs" that "ac me" is an organization; no organization can have that name',
  ],
])('refuses %s', (text, reason) => {
  expect(parseRoleMapping(text)).toBe(reason)
})

test('reads one role of a token', () => {
  expect(parseGrant('Deployer', ['ACME', 'acme-labs'])).toEqual({
    role: 'deployer',
    orgs: ['acme', 'acme-labs'],
  })
  expect(parseGrant('viewer', undefined)).toEqual({ role: 'viewer', orgs: 'all' })
  expect(parseGrant('deployer', ['acme', '*'])).toEqual({ role: 'deployer', orgs: 'all' })
  expect(parseGrant('deployer', [])).toMatch('a deployer is of no organization')
})
