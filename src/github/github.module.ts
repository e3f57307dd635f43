import { access, constants } from 'node:fs/promises'
import { join } from 'node:path'
import { Inject, Logger, Module, type OnApplicationShutdown } from '@nestjs/common'
import { Config, ConfigError } from '../config/config.ts'
import { Database } from '../database/database.ts'
import { ensureFolder, PRIVATE_MODE, restrictToOwner } from '../runtime/folders.ts'
import { GitHubClient } from './github-client.ts'
import { findGitBackend } from './local/git-backend.ts'
import { LocalForge } from './local/local-forge.ts'
import { GitHubRestClient } from './rest/github-rest-client.ts'
import { PostgresRateLimitStore } from './rest/rate-limit-store.ts'

@Module({
  providers: [
    {
      provide: GitHubClient,
      inject: [Config, Database],
      useFactory: (config: Config, database: Database): GitHubClient | Promise<GitHubClient> =>
        config.github
          ? new GitHubRestClient({
              ...config.github,
              rateLimitStore: new PostgresRateLimitStore(database),
              log: (message, details) => logger.warn(message, ...(details ? [details] : [])),
            })
          : openLocalForge(config),
    },
  ],
  exports: [GitHubClient],
})
export class GitHubModule implements OnApplicationShutdown {
  constructor(@Inject(GitHubClient) private readonly client: GitHubClient) {}

  async onApplicationShutdown(): Promise<void> {
    if (this.client instanceof GitHubRestClient) await this.client.close()
  }
}

const logger = new Logger('GitHub')

/** Opens the local forge. Only this account can read its repositories, whatever the umask. */
export async function openLocalForge(config: Pick<Config, 'dataDir' | 'publicUrl'>): Promise<LocalForge> {
  await checkGit()
  const folder = forgeFolder(config)
  await prepareForgeFolder(config.dataDir, folder)
  return new LocalForge({ folder, cloneUrlBase: `${config.publicUrl}/git` })
}

/** Git is needed to serve clones, not to write repositories. */
async function checkGit(): Promise<void> {
  try {
    await findGitBackend()
  } catch (error) {
    throw new ConfigError(
      'The local forge needs git with git-http-backend to serve clones, but it cannot be run. Install git (on Alpine Linux: git and git-daemon), or set a GitHub credential.',
      { cause: error },
    )
  }
}

async function prepareForgeFolder(dataDir: string, folder: string): Promise<void> {
  try {
    await ensureFolder(dataDir) // not private: the embedded Postgres may run as another account
    await ensureFolder(folder, PRIVATE_MODE)
    if (!(await restrictToOwner(folder))) {
      logger.warn(
        `Other accounts may be able to read the repositories in ${folder}: its mode cannot be changed to 700. Change its owner, or set DATA_DIR to a folder on another file system.`,
      )
    }
    await access(folder, constants.W_OK)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new ConfigError(
      `The local forge cannot write to ${folder} (${code}). Choose another folder with DATA_DIR, or set a GitHub credential.`,
      { cause: error },
    )
  }
}

export function forgeFolder(config: Pick<Config, 'dataDir'>): string {
  return join(config.dataDir, 'forge')
}
