import { randomUUID } from 'node:crypto'
import {
  type DocumentNode,
  type ExecutionArgs,
  GraphQLError,
  GraphQLScalarType,
  type GraphQLSchema,
  getOperationAST,
  Kind,
  type OperationDefinitionNode,
  type TypeNode,
} from 'graphql'
import { checkCost } from './operation-cost.ts'
import { coerceVariables } from './variables.ts'

export interface OperationRequest {
  query: string
  operationName?: string | null | undefined
  variables?: Record<string, unknown> | null | undefined
}

/** For `execute`: of one operation, with its variables as it takes them. */
export interface PreparedArgs extends Pick<ExecutionArgs, 'schema' | 'document'> {
  variableValues: Readonly<Record<string, unknown>>
}

/** Undefined: no operation has that name, or there are several and none is named. An empty name is none. */
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
 * What it takes to execute an operation of a valid document. Variables are coerced here, once; to graphql, which would
 * do it again for each execution, they are of a type that is handed on as it is.
 * @throws BadUserInput
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
 * What a prepared operation costs, about one for each field of its answer.
 * @throws TooLarge
 */
export function checkComplexity({ schema, document, variableValues }: PreparedArgs): number {
  return checkCost(schema, document, variableValues)
}

const COERCED_TYPE = new GraphQLScalarType<unknown>({ name: 'CoercedVariable' })
/** A secret: `__type` looks types up by name too, and must not find this one. */
const COERCED_KEY = randomUUID()
const COERCED_NODE: TypeNode = { kind: Kind.NAMED_TYPE, name: { kind: Kind.NAME, value: COERCED_KEY } }

const executableSchemas = new WeakMap<GraphQLSchema, GraphQLSchema>()

/** The same schema, which also has the type of coerced variables. */
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

/** Only the operation, and the fragments that it may use. */
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
