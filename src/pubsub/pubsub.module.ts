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
 * The PubSub provider. Messages can arrive late, repeatedly or never: use them only to react faster.
 * `publish` reaches the subscribers of this process at once, and those of other nodes soon.
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

  // Not in the factory, which Nest calls even if that of the database has failed.
  async onModuleInit(): Promise<void> {
    await this.pubSub.start()
  }

  /** Runners have just released their deployments: notify other nodes before anything else shuts down. */
  async beforeApplicationShutdown(): Promise<void> {
    await this.pubSub.flush()
  }

  async onApplicationShutdown(): Promise<void> {
    await this.pubSub.close()
  }
}
