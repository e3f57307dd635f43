import {
  type BeforeApplicationShutdown,
  Inject,
  Module,
  type OnApplicationShutdown,
  type OnModuleInit,
} from '@nestjs/common'
import { PubSubEngine } from 'graphql-subscriptions'
import { Database } from '../database/database.ts'
import { PostgresPubSub } from './postgres-pubsub.ts'

/**
 * The PubSub provider. What is published says "look": it may come late, twice or never, and nobody may need it for
 * more than speed. `publish` reaches the subscribers of this process at once, and those of other nodes soon.
 */
@Module({
  providers: [
    {
      provide: PostgresPubSub,
      inject: [Database],
      useFactory: (database: Database) => new PostgresPubSub(database),
    },
    { provide: PubSubEngine, useExisting: PostgresPubSub },
  ],
  exports: [PubSubEngine],
})
export class PubSubModule implements OnModuleInit, BeforeApplicationShutdown, OnApplicationShutdown {
  constructor(@Inject(PostgresPubSub) private readonly pubSub: PostgresPubSub) {}

  // Not in the factory: Nest calls that also where the database's own has failed.
  async onModuleInit(): Promise<void> {
    await this.pubSub.start()
  }

  /** Runners have just handed their deployments back: other nodes are told before anything else ends. */
  async beforeApplicationShutdown(): Promise<void> {
    await this.pubSub.flush()
  }

  async onApplicationShutdown(): Promise<void> {
    await this.pubSub.close()
  }
}
