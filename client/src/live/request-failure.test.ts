import { CombinedGraphQLErrors, ServerError } from '@apollo/client'
import { describe, expect, test } from '@jest/globals'
import { signInProviders, toRequestFailure } from './request-failure.ts'

function graphQLError(message: string, extensions: Record<string, unknown>) {
  return new CombinedGraphQLErrors({ errors: [{ message, extensions }] })
}

function serverError(status: number, body: string) {
  return new ServerError('HTTP error', { response: new Response(null, { status }), bodyText: body })
}

describe('a failed request', () => {
  test('with invalid input lists every field, without the prefix of the argument', () => {
    const fields = [
      { path: 'input.contents.files[3].path', reason: 'must not be empty' },
      { path: 'org' },
      null,
    ]
    expect(toRequestFailure(graphQLError('Invalid.', { code: 'BAD_USER_INPUT', fields }))).toEqual({
      kind: 'input',
      message: 'Invalid.',
      fields: [{ path: 'contents.files[3].path', reason: 'must not be empty' }],
      deploymentId: null,
    })
  })

  test('with a conflict names the other deployment', () => {
    const failure = toRequestFailure(graphQLError('Active.', { code: 'CONFLICT', deploymentId: '1' }))
    expect(failure).toMatchObject({ kind: 'conflict', deploymentId: '1' })
  })

  test('refused before GraphQL execution keeps the message of the body', () => {
    const body = JSON.stringify({ errors: [{ message: 'Too many.', extensions: { code: 'RATE_LIMITED' } }] })
    expect(toRequestFailure(serverError(429, body))).toMatchObject({ kind: 'refused', message: 'Too many.' })
  })

  test('refused by a proxy names the status, or suggests what to do about a body that is too large', () => {
    expect(toRequestFailure(serverError(502, '<html>'))).toMatchObject({
      kind: 'network',
      message: 'The server responded with status 502. Try again.',
    })
    expect(toRequestFailure(serverError(413, '<html>'))).toMatchObject({
      kind: 'refused',
      message: 'The request is larger than the server accepts. Select fewer or smaller files.',
    })
  })

  test('without a response asks to try again', () => {
    expect(toRequestFailure(new TypeError('Failed to fetch'))).toMatchObject({
      kind: 'network',
      message: 'The server could not be reached. Nothing is lost; try again.',
    })
  })
})

describe('sign-in providers', () => {
  const unauthenticated = (signIn: unknown) =>
    signInProviders(graphQLError('Sign in.', { code: 'UNAUTHENTICATED', signIn }))

  test('are those of the error, and only with paths on this server', () => {
    const provider = { name: 'GitHub', url: '/auth/github' }
    const elsewhere = ['//evil.example', 'https://evil.example', 'javascript:alert(1)', undefined]
    expect(unauthenticated([provider, ...elsewhere.map((url) => ({ name: 'x', url }))])).toEqual([provider])
  })

  test('are empty if the server has none, and null for other errors', () => {
    expect(unauthenticated(undefined)).toEqual([])
    expect(signInProviders(graphQLError('No.', { code: 'FORBIDDEN' }))).toBeNull()
    expect(signInProviders(new TypeError('Failed to fetch'))).toBeNull()
  })
})
