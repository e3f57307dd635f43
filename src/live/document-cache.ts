import {
  type DocumentNode,
  type GraphQLError,
  type GraphQLSchema,
  type OperationDefinitionNode,
  OperationTypeNode,
} from 'graphql'
import { LRUCache } from 'lru-cache'
import { checkDepth, parseAndValidate } from '../graphql/document-limits.ts'
import { findOperation, type OperationRequest, operationNotFound } from '../graphql/prepare-operation.ts'
import { checkEventLimits, type NormalForm, normalForm } from './normal-form.ts'

/** Documents differ by client program, not by viewer: a few dozen are in use. */
const MAX_CACHED_DOCUMENTS = 500
/** Of their texts together. What is parsed takes up to 110 bytes for each character: 55 MB. */
const MAX_CACHED_CHARACTERS = 500_000

/** An operation of a document that has been parsed and validated, and what the fan-out has to know of it. */
export interface ParsedDocument {
  document: DocumentNode
  operation: OperationDefinitionNode
  /** Of a subscription: what it has in common with others that ask for the same. */
  normal: NormalForm | undefined
}

/** Parses and validates each document once, however many send it. */
export class DocumentCache {
  private readonly cache = new LRUCache<string, ParsedDocument>({
    max: MAX_CACHED_DOCUMENTS,
    maxSize: MAX_CACHED_CHARACTERS,
    sizeCalculation: (_, key) => key.length,
  })

  get(schema: GraphQLSchema, { query, operationName }: OperationRequest): ParsedDocument | GraphQLError[] {
    const key = `${operationName ?? ''}\n${query}`
    const before = this.cache.get(key)
    if (before) return before
    const document = parseAndValidate(schema, query)
    if (Array.isArray(document)) return document
    const operation = findOperation(document, operationName)
    // Not kept: any number of names, as long as one likes, may come with one document.
    if (!operation) return [operationNotFound()]
    const tooDeep = checkDepth(schema, document)
    if (tooDeep) return [tooDeep]
    const isSubscription = operation.operation === OperationTypeNode.SUBSCRIPTION
    const normal = isSubscription ? normalForm(document, operation) : undefined
    const refusal = normal && checkEventLimits(schema, normal)
    if (refusal) return [refusal]
    const read = { document, operation, normal }
    this.cache.set(key, read)
    return read
  }
}
