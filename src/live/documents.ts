import {
  type DocumentNode,
  type GraphQLError,
  type GraphQLSchema,
  getOperationAST,
  OperationTypeNode,
} from 'graphql'
import { LRUCache } from 'lru-cache'
import { type Operation, readDocument } from '../graphql/document-limits.ts'
import { type NormalForm, normalForm, refuseForEvents } from './normal-form.ts'

/** Documents differ by client program, not by viewer: a few dozen are in use. Their text is at most 100,000 long. */
const KEPT_DOCUMENTS = 500

/** A document that has been parsed and validated, and what the fan-out has to know of it. */
export interface ReadDocument {
  document: DocumentNode
  /** Undefined: it has no operation of the name asked for, or several and no name was given. */
  type: OperationTypeNode | undefined
  /** Of a subscription: what it has in common with others that ask for the same. */
  normal: NormalForm | undefined
}

/** Parses and validates each document once, however many send it. */
export class Documents {
  private readonly kept = new LRUCache<string, ReadDocument>({ max: KEPT_DOCUMENTS })

  read(schema: GraphQLSchema, operation: Operation): ReadDocument | GraphQLError[] {
    const { query, operationName } = operation
    const key = `${operationName ?? ''}\n${query}`
    const before = this.kept.get(key)
    if (before) return before
    const document = readDocument(schema, operation)
    if (Array.isArray(document)) return document
    const operationNode = getOperationAST(document, operationName)
    const type = operationNode?.operation
    const normal =
      operationNode && type === OperationTypeNode.SUBSCRIPTION
        ? normalForm(document, operationNode)
        : undefined
    const refusal = normal && refuseForEvents(schema, normal)
    if (refusal) return [refusal]
    const read = { document, type, normal }
    // A name that is no operation's is not kept: any number of them, as long as one likes, may come with one document.
    if (operationNode) this.kept.set(key, read)
    return read
  }
}
