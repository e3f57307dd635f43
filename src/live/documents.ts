import {
  type DocumentNode,
  type GraphQLError,
  type GraphQLSchema,
  Kind,
  type OperationDefinitionNode,
  visit,
} from 'graphql'
import { LRUCache } from 'lru-cache'
import { checkDepth, readDocument } from '../graphql/document-limits.ts'
import { findOperation, type OperationRequest, operationNotFound } from '../graphql/prepare-operation.ts'

/** Documents differ by client program, not by viewer: a few dozen are in use. Their text is at most 100,000 long. */
const KEPT_DOCUMENTS = 500

/** An operation of a document that has been parsed and validated, and what the fan-out has to know of it. */
export interface ReadDocument {
  /** Names document and operation among those of this process. */
  id: number
  document: DocumentNode
  operation: OperationDefinitionNode
  /** The variable that is nothing but the root field's `after`, so that viewers differ in it who want the same. */
  cursorVariable: string | undefined
}

/** Parses and validates each document once, however many send it. */
export class Documents {
  private readonly kept = new LRUCache<string, ReadDocument>({ max: KEPT_DOCUMENTS })
  private nextId = 1

  read(schema: GraphQLSchema, { query, operationName }: OperationRequest): ReadDocument | GraphQLError[] {
    const key = `${operationName ?? ''}\n${query}`
    const before = this.kept.get(key)
    if (before) return before
    const document = readDocument(schema, query)
    if (Array.isArray(document)) return document
    const operation = findOperation(document, operationName)
    // Not kept: any number of names, as long as one likes, may come with one document.
    if (!operation) return [operationNotFound()]
    const tooDeep = checkDepth(schema, document)
    if (tooDeep) return [tooDeep]
    const cursor = cursorVariable(document, operation)
    const read = { id: this.nextId++, document, operation, cursorVariable: cursor }
    this.kept.set(key, read)
    return read
  }
}

function cursorVariable(document: DocumentNode, operation: OperationDefinitionNode): string | undefined {
  const root = operation.selectionSet.selections[0]
  if (root?.kind !== Kind.FIELD) return undefined
  const value = root.arguments?.find((argument) => argument.name.value === 'after')?.value
  if (value?.kind !== Kind.VARIABLE) return undefined
  const name = value.name.value
  return usesOf(document, name) === 1 ? name : undefined
}

function usesOf(document: DocumentNode, variable: string): number {
  let uses = 0
  visit(document, {
    VariableDefinition: () => false,
    Variable: ({ name }) => {
      if (name.value === variable) uses++
    },
  })
  return uses
}
