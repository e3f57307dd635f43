import type { IncomingMessage } from 'node:http'
import { createParamDecorator, type ExecutionContext } from '@nestjs/common'
import { type GqlContextType, GqlExecutionContext } from '@nestjs/graphql'
import type { Identity } from './credentials/authenticator.ts'
import type { Subject } from './rights.ts'

/** Who sent a request, and from where. */
export interface Principal extends Identity {
  /** A network address. */
  readonly address: string
}

/** The context of a resolver, over HTTP and over the socket alike. */
export interface RequestContext extends Principal {
  /** The socket that carries the request, or the one that an HTTP request names in `x-connection-id`. */
  connectionId: string | undefined
  /** Aborted when the client no longer waits for the response. */
  signal: AbortSignal
}

/** Identifies a connection in the log. Includes the subject, so that no client can impersonate another. */
export function originOf({
  connectionId,
  subject,
}: Pick<RequestContext, 'connectionId' | 'subject'>): string | undefined {
  return connectionId === undefined ? undefined : `${connectionId} ${subject.id}`
}

const principals = new WeakMap<IncomingMessage, Principal>()

export function setPrincipal(request: IncomingMessage, principal: Principal): void {
  principals.set(request, principal)
}

export function principalOf(request: IncomingMessage): Principal {
  const principal = principals.get(request)
  if (!principal) throw new Error('The request has not been authenticated.')
  return principal
}

/** The principal of a resolver's or controller's request. In resolvers, it is the whole `RequestContext`. */
export function principalFrom(context: ExecutionContext): Principal {
  if (context.getType<GqlContextType>() !== 'graphql') return principalOf(context.switchToHttp().getRequest())
  return GqlExecutionContext.create(context).getContext<RequestContext>()
}

/** Injects the principal of the request into a handler. */
export const Auth = createParamDecorator(
  (_: undefined, context: ExecutionContext): Principal => principalFrom(context),
)

/** Injects the subject of the request, with its rights, into a handler. */
export const CurrentSubject = createParamDecorator(
  (_: undefined, context: ExecutionContext): Subject => principalFrom(context).subject,
)
