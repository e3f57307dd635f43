import { join } from 'node:path'
import { Global, Inject, Logger, Module, type OnApplicationShutdown } from '@nestjs/common'
import { Config } from '../config.ts'
import { Database } from '../database/database.ts'
import { GitHubClient } from './github-client.ts'
import { GitHubRestClient } from './github-rest-client.ts'
import { LocalForge } from './local-forge.ts'
import { closePackingThreads } from './packing-threads.ts'
import { DatabasePauses } from './rest/database-pauses.ts'

@Global()
@Module({
  providers: [
    {
      provide: GitHubClient,
      inject: [Config, Database],
      useFactory: (config: Config, database: Database): GitHubClient =>
        config.github
          ? new GitHubRestClient({
              ...config.github,
              pauses: new DatabasePauses(database),
              log: (message) => logger.warn(message),
            })
          : new LocalForge({ folder: forgeFolder(config), cloneUrlBase: `${config.publicUrl}/git` }),
    },
  ],
  exports: [GitHubClient],
})
export class GitHubModule implements OnApplicationShutdown {
  constructor(@Inject(GitHubClient) private readonly client: GitHubClient) {}

  async onApplicationShutdown(): Promise<void> {
    if (this.client instanceof GitHubRestClient) await this.client.close()
    await closePackingThreads()
  }
}

const logger = new Logger('GitHub')

export function forgeFolder(config: Config): string {
  return join(config.dataDir, 'forge')
}
