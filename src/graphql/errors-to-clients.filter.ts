import { Catch, type ExceptionFilter } from '@nestjs/common'

/**
 * Hands on to GraphQL what a resolver threw. Without it Nest logs each as our own failure, with its stack: what a
 * client did wrong, and once more what `forClient` logs with its id.
 */
@Catch()
export class ErrorsToClients implements ExceptionFilter {
  catch(error: unknown): unknown {
    return error
  }
}
