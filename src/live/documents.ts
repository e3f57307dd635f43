import {
  type DocumentNode,
  type GraphQLError,
  type GraphQLSchema,
  getOperationAST,
  Kind,
  type OperationDefinitionNode,
  type OperationTypeNode,
  visit,
} from 'graphql'
import { LRUCache } from 'lru-cache'
import { type Operation, readDocument } from '../graphql/document-limits.ts'

/** Documents differ by client program, not by viewer: a few dozen are in use. Their text is at most 100,000 long. */
const KEPT_DOCUMENTS = 500

/** A document that has been parsed and validated, and what the fan-out has to know of it. */
export interface ReadDocument {
  /** Names the document among those of this process. */
  id: number
  document: DocumentNode
  /** Undefined: it has no operation of the name asked for, or several and no name was given. */
  type: OperationTypeNode | undefined
  /** The variable that is nothing but the root field's `after`, so that viewers differ in it who want the same. */
  cursorVariable: string | undefined
}

/** Parses and validates each document once, however many send it. */
export class Documents {
  private readonly kept = new LRUCache<string, ReadDocument>({ max: KEPT_DOCUMENTS })
  private nextId = 1

  read(schema: GraphQLSchema, operation: Operation): ReadDocument | GraphQLError[] {
    const { query, operationName } = operation
    const key = `${operationName ?? ''}\n${query}`
    const before = this.kept.get(key)
    if (before) return before
    const document = readDocument(schema, operation)
    if (Array.isArray(document)) return document
    const operationNode = getOperationAST(document, operationName)
    const read = {
      id: this.nextId++,
      document,
      type: operationNode?.operation,
      cursorVariable: cursorVariable(document, operationNode),
    }
    // A name that is no operation's is not kept: any number of them, as long as one likes, may come with one document.
    if (operationNode) this.kept.set(key, read)
    return read
  }
}

function cursorVariable(
  document: DocumentNode,
  operation: OperationDefinitionNode | null | undefined,
): string | undefined {
  const root = operation?.selectionSet.selections[0]
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
