import {
  type DocumentNode,
  type GraphQLError,
  type GraphQLSchema,
  type OperationDefinitionNode,
  OperationTypeNode,
} from 'graphql'
import { LRUCache } from 'lru-cache'
import { checkDepth, readDocument } from '../graphql/document-limits.ts'
import { findOperation, type OperationRequest, operationNotFound } from '../graphql/prepare-operation.ts'
import { type NormalForm, normalForm, refuseForEvents } from './normal-form.ts'

/** Documents differ by client program, not by viewer: a few dozen are in use. */
const KEPT_DOCUMENTS = 500
/** Of their texts together, in characters; in memory a document takes some sixty times as much. */
const KEPT_LENGTH = 1_000_000

/** An operation of a document that has been parsed and validated, and what the fan-out has to know of it. */
export interface ReadDocument {
  document: DocumentNode
  operation: OperationDefinitionNode
  /** Of a subscription: what it has in common with others that ask for the same. */
  normal: NormalForm | undefined
}

/** Parses and validates each document once, however many send it. */
export class Documents {
  private readonly kept = new LRUCache<string, ReadDocument>({
    max: KEPT_DOCUMENTS,
    maxSize: KEPT_LENGTH,
    sizeCalculation: (_, key) => key.length,
  })

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
    const isSubscription = operation.operation === OperationTypeNode.SUBSCRIPTION
    const normal = isSubscription ? normalForm(document, operation) : undefined
    const refusal = normal && refuseForEvents(schema, normal)
    if (refusal) return [refusal]
    const read = { document, operation, normal }
    this.kept.set(key, read)
    return read
  }
}
