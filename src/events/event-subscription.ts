import { applyDecorators } from '@nestjs/common'
import { Extensions, type ReturnTypeFunc, Subscription, type SubscriptionOptions } from '@nestjs/graphql'
import type { GraphQLField } from 'graphql'
import type { EventStream } from './event-stream.ts'

/** In the extensions of a subscription field: its resolver returns an `EventStream`. */
export const EVENT_SUBSCRIPTION = 'eventSubscription'

type EventSubscriptionDecorator = <Resolver extends (...args: never[]) => Promise<EventStream>>(
  target: object,
  name: string,
  descriptor: TypedPropertyDescriptor<Resolver>,
) => void

/**
 * Nest's `@Subscription`, for resolvers that return an `EventStream`. All subscriptions are declared with it.
 */
export function EventSubscription(
  type: ReturnTypeFunc,
  options: SubscriptionOptions,
): EventSubscriptionDecorator {
  return applyDecorators(Subscription(type, options), Extensions({ [EVENT_SUBSCRIPTION]: true }))
}

export function isEventSubscription({ extensions }: GraphQLField<unknown, unknown>): boolean {
  return extensions[EVENT_SUBSCRIPTION] === true
}
