import { Injectable } from '@nestjs/common'
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
/** Of all documents together. A parsed document takes up to 110 bytes per character: 55 MB. */
const MAX_CACHED_CHARACTERS = 500_000

/** An operation of a valid document. */
interface ParsedDocument {
  document: DocumentNode
  operation: OperationDefinitionNode
  /** For subscriptions only. */
  normalForm: NormalForm | undefined
}

/** All errors of a document that cannot be executed. */
export class InvalidDocumentError extends Error {
  constructor(readonly errors: readonly GraphQLError[]) {
    super('The document is not valid.')
  }
}

/** Parses and validates each document once, however many clients send it. */
@Injectable()
export class DocumentCache {
  private readonly cache = new LRUCache<string, ParsedDocument>({
    max: MAX_CACHED_DOCUMENTS,
    maxSize: MAX_CACHED_CHARACTERS,
    sizeCalculation: (_, key) => key.length,
  })

  /** @throws InvalidDocumentError */
  get(schema: GraphQLSchema, request: OperationRequest): ParsedDocument {
    const key = `${request.operationName ?? ''}\n${request.query}`
    const cached = this.cache.get(key)
    if (cached) return cached
    const parsed = parseRequest(schema, request)
    this.cache.set(key, parsed)
    return parsed
  }
}

function parseRequest(schema: GraphQLSchema, { query, operationName }: OperationRequest): ParsedDocument {
  const document = parseAndValidate(schema, query)
  if (Array.isArray(document)) throw new InvalidDocumentError(document)
  const operation = findOperation(document, operationName)
  if (!operation) throw new InvalidDocumentError([operationNotFound()])
  const depthError = checkDepth(schema, document)
  if (depthError) throw new InvalidDocumentError([depthError])
  if (operation.operation !== OperationTypeNode.SUBSCRIPTION) {
    return { document, operation, normalForm: undefined }
  }
  const normal = normalForm(document, operation)
  const limitError = checkEventLimits(schema, normal)
  if (limitError) throw new InvalidDocumentError([limitError])
  return { document, operation, normalForm: normal }
}
