import { Logger } from '@nestjs/common'

// Hides the log of the code under test, unless LOG_LEVEL is set: `LOG_LEVEL=debug npm test`.
if (!process.env.LOG_LEVEL) Logger.overrideLogger(false)
