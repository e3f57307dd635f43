import { Catch } from '@nestjs/common'
import type { GqlExceptionFilter } from '@nestjs/graphql'
import { GraphQLError } from 'graphql'

/** Errors that are for clients go to them as they are. Without this, Nest logs each as a fault of ours. */
@Catch(GraphQLError)
export class ClientErrorFilter implements GqlExceptionFilter<GraphQLError> {
  catch(error: GraphQLError): GraphQLError {
    return error
  }
}
