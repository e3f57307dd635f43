import { UseFilters } from '@nestjs/common'
import { Args, ID, Int, Mutation, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql'
import DataLoader from 'dataloader'
import { OpaqueSubjectIds } from '../auth/opaque-subject-ids.ts'
import { Auth, CurrentSubject, type RequestContext } from '../auth/principal.ts'
import type { Subject } from '../auth/rights.ts'
import type { DeploymentStatus, LoggedEvent } from '../events/deployment-event.ts'
import { EventFeed } from '../events/event-feed.ts'
import { EventLog, type EventRange } from '../events/event-log.ts'
import { type EventStream, EventSubscription } from '../events/event-stream.ts'
import { PassThroughErrorsFilter } from '../graphql/error-formatting.ts'
import { checkRange, connectionOf, parsePaging } from '../graphql/paging.ts'
import { Template } from '../templates/template.model.ts'
import { TemplateCatalog } from '../templates/template-catalog.ts'
import { DeployInput } from './deploy.input.ts'
import {
  Deployment,
  DeploymentConnection,
  DeploymentEvent,
  DeploymentStatusEnum,
  toDeployment,
  toDeploymentEvent,
} from './deployment.model.ts'
import { DeploymentService } from './deployment.service.ts'

const MAX_DEPLOYMENTS = 100
const MAX_EVENTS = 1_000

/** Translates between GraphQL and the service. */
@UseFilters(PassThroughErrorsFilter)
@Resolver(() => Deployment)
export class DeploymentsResolver {
  /** One statement for all deployments of a page. Not cached: the next page reads again. */
  private readonly eventsLoader = new DataLoader<EventRange, LoggedEvent[]>(
    (ranges) => this.log.readRanges(ranges),
    { cache: false, maxBatchSize: MAX_DEPLOYMENTS },
  )

  constructor(
    private readonly service: DeploymentService,
    private readonly templateCatalog: TemplateCatalog,
    private readonly log: EventLog,
    private readonly feed: EventFeed,
    private readonly opaqueIds: OpaqueSubjectIds,
  ) {}

  @Mutation(() => Deployment, {
    description:
      'Deploys a repository with these contents to the forge. Returns as soon as the deployment is stored; follow it with `deploymentStatus`.',
  })
  async deploy(
    @Args('input', { description: 'The repository and its contents.' }) input: DeployInput,
    @Auth() context: RequestContext,
  ): Promise<Deployment> {
    return toDeployment(await this.service.deploy(input, context))
  }

  @Mutation(() => Deployment, {
    description: 'Cancels a deployment and aborts its call to the forge, if one is in flight.',
  })
  async cancelDeployment(
    @Args('id', { type: () => ID, description: 'The id of the deployment.' }) id: string,
    @Auth() context: RequestContext,
  ): Promise<Deployment> {
    return toDeployment(await this.service.cancel(id, context))
  }

  @Mutation(() => Deployment, {
    description: 'Resumes a deployment that failed or was cancelled, after the last step reached.',
  })
  async retryDeployment(
    @Args('id', { type: () => ID, description: 'The id of the deployment.' }) id: string,
    @Auth() context: RequestContext,
  ): Promise<Deployment> {
    return toDeployment(await this.service.retry(id, context))
  }

  @Query(() => Deployment, {
    nullable: true,
    description: 'The current state of a deployment, or null if it does not exist or you cannot view it.',
  })
  async deployment(
    @Args('id', { type: () => ID, description: 'The id of the deployment.' }) id: string,
    @CurrentSubject() subject: Subject,
  ): Promise<Deployment | null> {
    const found = await this.service.find(id, subject)
    return found ? toDeployment(found) : null
  }

  @Query(() => DeploymentConnection, { description: 'The deployments that you can view, newest first.' })
  async deployments(
    @Args('first', { type: () => Int, nullable: true, defaultValue: 20, description: 'At most 100.' })
    first: number | null,
    @Args('after', { type: () => String, nullable: true, description: 'Items after this cursor.' }) after:
      | string
      | null,
    @Args('org', {
      type: () => String,
      nullable: true,
      description: 'Only deployments to this organization.',
    })
    org: string | null,
    @Args('repo', {
      type: () => String,
      nullable: true,
      description: 'Only deployments of repositories with this name.',
    })
    repo: string | null,
    @Args('status', {
      type: () => [DeploymentStatusEnum],
      nullable: true,
      description: 'Only deployments with one of these statuses.',
    })
    status: DeploymentStatus[] | null,
    @CurrentSubject() subject: Subject,
  ): Promise<DeploymentConnection> {
    const paging = parsePaging(first ?? 20, after ?? null, MAX_DEPLOYMENTS)
    const page = { limit: paging.limit + 1, before: paging.before, org, repo, statuses: status }
    const found = await this.service.list(page, subject)
    return connectionOf(found.map(toDeployment), paging)
  }

  @Query(() => [Template], { description: 'The templates on this server, sorted by name.' })
  templates(): Template[] {
    return [...this.templateCatalog.list()]
  }

  @ResolveField(() => ID, {
    nullable: true,
    description:
      "Identifies the requester: names are not unique. Opaque; the same as `Me.id` on the requester's own deployments.",
  })
  requestedById(@Parent() { requestedBySubjectId }: Deployment): string | null {
    return requestedBySubjectId === null ? null : this.opaqueIds.of(requestedBySubjectId)
  }

  @ResolveField(() => [DeploymentEvent], {
    description:
      'The events of the deployment, in order. Not available in a subscription, which delivers each event as it happens.',
  })
  async events(
    @Parent() deployment: Deployment,
    @Args('after', {
      type: () => Int,
      nullable: true,
      defaultValue: 0,
      description: 'Events after this sequence number.',
    })
    after: number | null,
    @Args('first', { type: () => Int, nullable: true, defaultValue: 100, description: 'At most 1,000.' })
    first: number | null,
  ): Promise<DeploymentEvent[]> {
    const events = await this.eventsLoader.load({
      deploymentId: deployment.id,
      sequence: after ?? 0,
      limit: checkRange('first', first ?? 100, MAX_EVENTS),
    })
    return events.map((event) => toDeploymentEvent(event, this.feed.cursorOf(event.position)))
  }

  @EventSubscription(() => DeploymentEvent, {
    description:
      'Events as they happen, in order, without gap or repeat. Without `after`: the current state of each active deployment, or of the given one, then every new event. With `after`: every event since that cursor.',
    resolve(this: DeploymentsResolver, event: LoggedEvent) {
      return toDeploymentEvent(event, this.feed.cursorOf(event.position))
    },
  })
  async deploymentStatus(
    @Args('deploymentId', {
      type: () => ID,
      nullable: true,
      description: 'Only events of this deployment; otherwise of all.',
    })
    deploymentId: string | null,
    @Args('after', {
      type: () => String,
      nullable: true,
      description: 'The cursor of the last event received.',
    })
    after: string | null,
    @Auth() context: RequestContext,
  ): Promise<EventStream<LoggedEvent>> {
    return this.service.follow(deploymentId, after, context)
  }
}
