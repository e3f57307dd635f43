import { readFile } from 'node:fs/promises'
import { ApolloServerErrorCode } from '@apollo/server/errors'
import { expect, test } from '@jest/globals'
import { ERROR_CODES } from '../src/errors.ts'
import { REMEDIES } from '../src/github/forge-error.ts'

/** Codes of Apollo Server for persisted queries, and for errors that Shipcast reports as `INTERNAL`. */
const NEVER_SENT: string[] = [
  ApolloServerErrorCode.PERSISTED_QUERY_NOT_FOUND,
  ApolloServerErrorCode.INTERNAL_SERVER_ERROR,
]

test('PROTOCOL.md lists every error code of a response and of a deployment, and no other', async () => {
  const [responseCodes, deploymentCodes] = (await readFile('PROTOCOL.md', 'utf8'))
    .split('\n## Errors\n')[1]!
    .split("A deployment's own `error.code`")
    .map((part) =>
      [...part.matchAll(/^\| (`[A-Z].*?) \|/gm)].flatMap(([, codes]) => codes!.match(/[A-Z_]+/g)!),
    )

  const apollo = Object.values<string>(ApolloServerErrorCode).filter((code) => !NEVER_SENT.includes(code))
  expect(responseCodes!.toSorted()).toEqual([...new Set([...ERROR_CODES, ...apollo])].sort())
  expect(deploymentCodes!.toSorted()).toEqual([...Object.keys(REMEDIES), 'RUNNER_DIED', 'INTERNAL'].sort())
})
