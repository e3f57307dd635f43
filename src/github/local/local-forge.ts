import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { ensureFolder, PRIVATE_MODE } from '../../runtime/folders.ts'
import { ForgeError } from '../forge-error.ts'
import {
  type CallContext,
  type EnsureOrganizationInput,
  type EnsureRepositoryInput,
  GitHubClient,
  type Organization,
  type PushContentsInput,
  type PushResult,
  type Repository,
} from '../github-client.ts'
import { branchRef } from '../repository-names.ts'
import { BareRepository } from './bare-repository.ts'
import { createFile, readIfExists, sweepTemporaryFolder } from './durable-files.ts'
import {
  type OrganizationRecord,
  organizationFolder,
  type RepositoryRecord,
  repositoryFolder,
} from './forge-layout.ts'
import { toStorageError } from './storage-errors.ts'

interface LocalForgeOptions {
  /** Contains the repositories; created if necessary. Several processes may use it at once. */
  folder: string
  /** The base URL of `gitHttpHandler`, without a trailing slash: `http://127.0.0.1:3000/git`. */
  cloneUrlBase: string
}

/**
 * A forge on this machine's disk: real bare git repositories, written without running git.
 *
 * When a call resolves, its result is flushed to disk. A process may be killed at any point: any process can
 * repeat the call, with the same result. The order of writes ensures this:
 *   create: build in a temporary folder, flush, rename
 *   push:   write and flush pack and index, then move the ref by compare-and-swap
 */
export class LocalForge extends GitHubClient {
  private readonly options: LocalForgeOptions
  private readonly temporaryFolder: string

  constructor(options: LocalForgeOptions) {
    super()
    this.options = options
    this.temporaryFolder = join(options.folder, '.tmp')
  }

  ensureOrganization(input: EnsureOrganizationInput, { signal }: CallContext): Promise<Organization> {
    return this.withStorageErrors(async () => {
      signal.throwIfAborted()
      const path = join(organizationFolder(this.options.folder, input.login), 'organization.json')
      const existing = await readOrganization(path)
      if (existing !== null) return { outcome: 'existed', id: existing.id, login: existing.login }

      await ensureFolder(this.temporaryFolder, PRIVATE_MODE)
      await ensureFolder(organizationFolder(this.options.folder, input.login), PRIVATE_MODE)
      const record: OrganizationRecord = {
        id: randomUUID(),
        login: input.login,
        createdAt: new Date().toISOString(),
      }
      const isCreated = await createFile(path, `${JSON.stringify(record, null, 2)}\n`, this.temporaryFolder)
      const { id, login } = (await readOrganization(path)) ?? record
      return { outcome: isCreated ? 'created' : 'existed', id, login }
    })
  }

  ensureRepository(input: EnsureRepositoryInput, context: CallContext): Promise<Repository> {
    return this.withStorageErrors(async () => {
      context.signal.throwIfAborted()
      const repository = this.repository(input)
      const ref = branchRef(input.branch)
      const existing = await repository.readRecord()
      if (existing !== null) return this.adopt(repository, existing, input)
      if (input.knownId !== null) throw repositoryGoneError(input)

      const organization = await this.ensureOrganization({ login: input.owner }, context)
      await sweepTemporaryFolder(this.temporaryFolder)
      const record: RepositoryRecord = {
        id: randomUUID(),
        owner: organization.login,
        name: input.name,
        visibility: input.visibility,
        description: input.description,
        intentId: input.intentId,
        createdAt: new Date().toISOString(),
      }
      const isCreated = await repository.create(record, ref, this.temporaryFolder)
      if (isCreated) return this.toRepository('created', record)
      const concurrent = await repository.readRecord()
      if (concurrent === null) throw repositoryTakenError(input)
      return this.adopt(repository, concurrent, input)
    })
  }

  pushContents(input: PushContentsInput, { signal, onProgress }: CallContext): Promise<PushResult> {
    return this.withStorageErrors(async () => {
      signal.throwIfAborted()
      const { contents, expectedHead } = input
      const repository = this.repository(input)
      const ref = branchRef(input.branch)
      if ((await repository.readRecord())?.id !== input.repositoryId) throw repositoryGoneError(input)

      await repository.sweep()
      // Also checked before writing the pack, so that a late push does not leave a
      // pack that no ref points to.
      if (!(await repository.checkRef(ref, expectedHead, contents.commit)))
        return { outcome: 'already-pushed', commit: contents.commit }
      await repository.addPack(contents, signal, (done) =>
        onProgress?.({ done, total: contents.packBytes, unit: 'bytes' }),
      )
      await repository.updateRef(ref, expectedHead, contents.commit)
      return { outcome: 'pushed', commit: contents.commit }
    })
  }

  branchHead(
    input: { owner: string; name: string; branch: string },
    { signal }: CallContext,
  ): Promise<string | null> {
    return this.withStorageErrors(async () => {
      signal.throwIfAborted()
      return this.repository(input).readRef(branchRef(input.branch))
    })
  }

  private repository({ owner, name }: { owner: string; name: string }): BareRepository {
    return new BareRepository(repositoryFolder(this.options.folder, owner, name))
  }

  /** The existing repository if it belongs to this deployment, else `REPO_TAKEN`. */
  private async adopt(
    repository: BareRepository,
    record: RepositoryRecord,
    input: EnsureRepositoryInput,
  ): Promise<Repository> {
    const isOurs =
      record.id === input.knownId ||
      record.intentId === input.intentId ||
      (await repository.readRef(branchRef(input.branch))) === input.plannedCommit
    if (!isOurs) throw repositoryTakenError(input)
    return this.toRepository('existed', record)
  }

  private toRepository(outcome: Repository['outcome'], { id, owner, name }: RepositoryRecord): Repository {
    const url = `${this.options.cloneUrlBase}/${owner}/${name}`
    return { outcome, id, owner, name, url, cloneUrl: `${url}.git` }
  }

  private async withStorageErrors<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await action()
    } catch (error) {
      throw toStorageError(error, this.options.folder)
    }
  }
}

async function readOrganization(path: string): Promise<OrganizationRecord | null> {
  const json = await readIfExists(path)
  return json === null ? null : JSON.parse(json)
}

function repositoryTakenError({ owner, name }: EnsureRepositoryInput): ForgeError {
  return new ForgeError(
    'REPO_TAKEN',
    `${owner}/${name} already exists and does not belong to this deployment. Remove it and retry, or start a new deployment with another name.`,
  )
}

function repositoryGoneError({ owner, name }: { owner: string; name: string }): ForgeError {
  return new ForgeError(
    'REPO_GONE',
    `${owner}/${name} was created by this deployment but no longer exists. Restore it and retry, or start a new deployment.`,
  )
}
