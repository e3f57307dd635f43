import { Logger } from '@nestjs/common'

// What the code under test logs is not what a test says. `LOG_LEVEL=debug npm test` shows it.
if (!process.env.LOG_LEVEL) Logger.overrideLogger(false)
