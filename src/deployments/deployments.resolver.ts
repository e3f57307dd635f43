import { UseFilters } from '@nestjs/common'
import { Args, ID, Int, Mutation, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql'
import DataLoader from 'dataloader'
import { validate as isUuid } from 'uuid'
import { OpaqueSubjectIds } from '../auth/opaque-subject-ids.ts'
import { Auth, CurrentSubject } from '../auth/principal.ts'
import { RateLimiter } from '../auth/rate-limiter.ts'
import { originOf, type RequestContext } from '../auth/request-context.ts'
import { includesOrg, type Organizations, type Subject } from '../auth/rights.ts'
import { NotFoundError } from '../errors.ts'
import type { DeploymentStatus, LoggedEvent } from '../events/deployment-event.ts'
import { EventFeed } from '../events/event-feed.ts'
import { EventLog, type EventRange } from '../events/event-log.ts'
import type { EventStream } from '../events/event-stream.ts'
import { EventSubscription } from '../events/event-subscription.ts'
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
  /** One statement for all deployments of a page. Nothing is kept: the next one reads again. */
  private readonly eventsLoader = new DataLoader<EventRange, LoggedEvent[]>(
    (ranges) => this.log.readRanges(ranges),
    {
      cache: false,
      maxBatchSize: MAX_DEPLOYMENTS,
    },
  )

  constructor(
    private readonly service: DeploymentService,
    private readonly templateCatalog: TemplateCatalog,
    private readonly log: EventLog,
    private readonly feed: EventFeed,
    private readonly rateLimiter: RateLimiter,
    private readonly opaqueIds: OpaqueSubjectIds,
  ) {}

  @Mutation(() => Deployment, {
    description:
      'Puts a repository with these contents on the forge. Answers as soon as that is stored; follow it with `deploymentStatus`.',
  })
  async deploy(
    @Args('input', { description: 'Where the repository goes, and what is in it.' }) input: DeployInput,
    @Auth() context: RequestContext,
  ): Promise<Deployment> {
    return toDeployment(await this.service.deploy(input, context))
  }

  @Mutation(() => Deployment, { description: 'Stops a deployment, a call to the forge in flight included.' })
  async cancelDeployment(
    @Args('id', { type: () => ID, description: 'The id of the deployment.' }) id: string,
    @Auth() context: RequestContext,
  ): Promise<Deployment> {
    return toDeployment(await this.service.cancel(id, context))
  }

  @Mutation(() => Deployment, {
    description: 'Goes on with a deployment that failed or was cancelled, from the step that it had reached.',
  })
  async retryDeployment(
    @Args('id', { type: () => ID, description: 'The id of the deployment.' }) id: string,
    @Auth() context: RequestContext,
  ): Promise<Deployment> {
    return toDeployment(await this.service.retry(id, context))
  }

  @Query(() => Deployment, {
    nullable: true,
    description: 'One deployment as it is now; null: there is none, or you may not see it.',
  })
  async deployment(
    @Args('id', { type: () => ID, description: 'The id of the deployment.' }) id: string,
    @CurrentSubject() subject: Subject,
  ): Promise<Deployment | null> {
    const found = await this.service.find(id, subject)
    return found ? toDeployment(found) : null
  }

  @Query(() => DeploymentConnection, { description: 'Deployments that you may see, newest first.' })
  async deployments(
    @Args('first', { type: () => Int, nullable: true, defaultValue: 20, description: 'At most 100.' })
    first: number | null,
    @Args('after', { type: () => String, nullable: true, description: 'Those behind this one.' }) after:
      | string
      | null,
    @Args('org', { type: () => String, nullable: true, description: 'Only of this organization.' }) org:
      | string
      | null,
    @Args('repo', { type: () => String, nullable: true, description: 'Only of repositories of this name.' })
    repo: string | null,
    @Args('status', {
      type: () => [DeploymentStatusEnum],
      nullable: true,
      description: 'Only in one of these.',
    })
    status: DeploymentStatus[] | null,
    @CurrentSubject() subject: Subject,
  ): Promise<DeploymentConnection> {
    const paging = parsePaging(first ?? 20, after ?? null, MAX_DEPLOYMENTS)
    const found = [org, repo].every(isPossibleName)
      ? await this.service.list({
          limit: paging.limit + 1,
          before: paging.before,
          sees: subject.rights.sees,
          org: org ?? null,
          repo: repo ?? null,
          statuses: status ?? null,
        })
      : []
    return connectionOf(found.map(toDeployment), paging)
  }

  @Query(() => [Template], { description: 'The templates that this server offers, by name.' })
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
      'What has happened to it, in order. Not in a subscription, which brings each event as it happens.',
  })
  async events(
    @Parent() deployment: Deployment,
    @Args('after', {
      type: () => Int,
      nullable: true,
      defaultValue: 0,
      description: 'Those after this sequence.',
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
      'What happens, as it happens: in order, without gap or repeat. Without `after`: the state now (of each active deployment, or of the one named), then what follows. With `after`: everything since that cursor.',
    resolve(this: DeploymentsResolver, event: LoggedEvent) {
      return toDeploymentEvent(event, this.feed.cursorOf(event.position))
    },
  })
  async deploymentStatus(
    @Args('deploymentId', {
      type: () => ID,
      nullable: true,
      description: 'Only this one; otherwise every one.',
    })
    deploymentId: string | null,
    @Args('after', { type: () => String, nullable: true, description: 'The cursor of the last event seen.' })
    after: string | null,
    @Auth() context: RequestContext,
  ): Promise<EventStream<LoggedEvent>> {
    // An empty id is the id of none, and not everybody's.
    this.rateLimiter.countSubscription(context.subject)
    const { sees } = context.subject.rights
    const one = deploymentId == null ? undefined : await this.requireVisibleId(deploymentId, sees)
    return this.feed.follow({ deploymentId: one, after, sees, origin: originOf(context) })
  }

  /** The id as it is stored, which is in small letters. */
  private async requireVisibleId(deploymentId: string, sees: Organizations): Promise<string> {
    const id = deploymentId.toLowerCase()
    const [event] = isUuid(id) ? (await this.feed.snapshot(id)).events : []
    if (event && includesOrg(sees, event.deployment.org)) return id
    throw new NotFoundError(`Deployment ${deploymentId.slice(0, 50)}`)
  }
}

/** Nothing has a name such as "", or of a megabyte; some that are none are errors to Postgres. */
function isPossibleName(name: string | null | undefined): boolean {
  return name == null || /^[A-Za-z0-9._-]{1,100}$/.test(name)
}
