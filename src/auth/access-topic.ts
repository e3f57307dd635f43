/** The PubSub topic that says "look": a token or session has changed or ended. */
export const ACCESS_TOPIC = 'access'
