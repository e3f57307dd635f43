import type { IncomingMessage } from 'node:http'
import { createParamDecorator, type ExecutionContext } from '@nestjs/common'
import { type GqlContextType, GqlExecutionContext } from '@nestjs/graphql'
import type { Principal, RequestContext } from './request-context.ts'
import type { Subject } from './rights.ts'

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
