import { randomUUID } from 'node:crypto'
import {
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  execute,
  GraphQLError,
  GraphQLScalarType,
  type GraphQLSchema,
  getOperationAST,
  Kind,
  type OperationDefinitionNode,
  type TypeNode,
} from 'graphql'
import { RateLimitedError } from '../errors.ts'
import { FairSlots } from '../runtime/fair-slots.ts'
import { checkCost } from './operation-cost.ts'
import { coerceVariables } from './variables.ts'

export interface OperationRequest {
  query: string
  operationName?: string | null | undefined
  variables?: Record<string, unknown> | null | undefined
}

/** The arguments of `execute` for one operation, with coerced variables. */
export interface PreparedArgs extends Pick<ExecutionArgs, 'schema' | 'document'> {
  variableValues: Readonly<Record<string, unknown>>
}

/**
 * Undefined: no operation has that name, or the document has several and none is named. An empty name counts
 * as absent.
 */
export function findOperation(
  document: DocumentNode,
  operationName: string | null | undefined,
): OperationDefinitionNode | undefined {
  return getOperationAST(document, operationName || undefined) ?? undefined
}

export function operationNotFound(): GraphQLError {
  return new GraphQLError(
    'The document has no operation with that name, or it has several. Set operationName to one of them.',
    { extensions: { code: 'OPERATION_RESOLUTION_FAILURE' } },
  )
}

/**
 * Prepares an operation of a valid document for execution. Variables are coerced here, once: graphql-js would
 * coerce them again in each execution, so it gets a type that passes values through.
 * @throws BadUserInputError
 */
export function prepareOperation(
  schema: GraphQLSchema,
  document: DocumentNode,
  operation: OperationDefinitionNode,
  variables: OperationRequest['variables'],
): PreparedArgs {
  return {
    schema: executableSchema(schema),
    document: executableDocument(document, operation),
    variableValues: coerceVariables(schema, operation, variables ?? {}),
  }
}

/**
 * The estimated cost of a prepared operation, about one for each field of its response.
 * @throws TooLargeError
 */
export function checkComplexity({ schema, document, variableValues }: PreparedArgs): number {
  return checkCost(schema, document, variableValues)
}

const COERCED_TYPE = new GraphQLScalarType<unknown>({ name: 'CoercedVariable' })
/** Random, because `__type` also looks types up by name, and must not find this one. */
const COERCED_KEY = randomUUID()
const COERCED_NODE: TypeNode = { kind: Kind.NAMED_TYPE, name: { kind: Kind.NAME, value: COERCED_KEY } }

const executableSchemas = new WeakMap<GraphQLSchema, GraphQLSchema>()

/** The same schema with the type of coerced variables. */
function executableSchema(schema: GraphQLSchema): GraphQLSchema {
  let executable = executableSchemas.get(schema)
  if (!executable) {
    const getType: GraphQLSchema['getType'] = (name) =>
      name === COERCED_KEY ? COERCED_TYPE : schema.getType(name)
    executable = Object.assign(Object.create(schema) as GraphQLSchema, { getType })
    executableSchemas.set(schema, executable)
  }
  return executable
}

const executableDocuments = new WeakMap<OperationDefinitionNode, DocumentNode>()

/** The operation, and the fragments that it may use. */
function executableDocument(document: DocumentNode, operation: OperationDefinitionNode): DocumentNode {
  let executable = executableDocuments.get(operation)
  if (!executable) {
    const fragments = document.definitions.filter(({ kind }) => kind === Kind.FRAGMENT_DEFINITION)
    const variableDefinitions = operation.variableDefinitions?.map(({ kind, variable }) => {
      return { kind, variable, type: COERCED_NODE }
    })
    executable = { ...document, definitions: [{ ...operation, variableDefinitions }, ...fragments] }
    executableDocuments.set(operation, executable)
  }
  return executable
}

/** A response that costs this much takes longer to produce than other requests should wait. */
const LARGE_COST = 2_000
const MAX_WAITING_OPERATIONS = 500
const RETRY_AFTER_MS = 5_000

const largeOperationSlots = new FairSlots(
  1,
  MAX_WAITING_OPERATIONS,
  () => new RateLimitedError('Too many large queries are waiting.', RETRY_AFTER_MS),
)

interface FairExecutionArgs extends ExecutionArgs {
  contextValue: { readonly subject: { readonly id: string }; readonly signal: AbortSignal }
}

/**
 * Executes an operation. Large ones run one at a time, with subjects taking turns, so that no two of them
 * finish in the same event-loop iteration.
 * @throws RateLimitedError
 */
export async function executeFairly(args: FairExecutionArgs, cost: number): Promise<ExecutionResult> {
  if (cost < LARGE_COST) return execute(args)
  const { subject, signal } = args.contextValue
  const releaseSlot = await largeOperationSlots.acquire([subject.id], signal)
  try {
    return await execute(args)
  } finally {
    releaseSlot()
  }
}
