/** One example of each operation, in a tab each. GraphiQL stores the user's edits. */
export const EXAMPLES: { query: string; variables?: string }[] = [
  // Without variables, because GraphiQL shows those of the first tab only after a switch to another.
  {
    query: `# The templates that this server offers.
query Templates {
  templates {
    name
    title
    description
    fileCount
    variables {
      name
      description
      default
      required
    }
  }
}
`,
  },
  {
    query: `# Deploys a template. Returns at once; subscribe to
# deploymentStatus to follow the deployment.
mutation DeployTemplate($input: DeployInput!) {
  deploy(input: $input) {
    id
    status
    text
  }
}
`,
    variables: toJson({
      input: {
        org: 'acme',
        repo: 'hello-world',
        visibility: 'PRIVATE',
        description: 'Created in the playground',
        contents: { template: { name: 'hello-world' } },
      },
    }),
  },
  {
    query: `# Deploys files. A retry with the same idempotency key
# and input returns the same deployment.
mutation DeployFiles($input: DeployInput!) {
  deploy(input: $input) {
    id
    status
    text
  }
}
`,
    variables: toJson({
      input: {
        org: 'acme',
        repo: 'from-files',
        contents: {
          files: [
            { path: 'README.md', content: '# From files\n' },
            { path: 'bin/hello', content: '#!/bin/sh\necho hello\n', executable: true },
            { path: 'pixel.gif', content: 'R0lGODlhAQABAAAAACwAAAAAAQABAAAC', encoding: 'BASE64' },
          ],
        },
        branch: 'main',
        commitMessage: 'Initial commit',
        idempotencyKey: 'from-files-1',
      },
    }),
  },
  {
    query: `# The current state of every active deployment,
# then every event.
subscription AllDeployments {
  deploymentStatus {
    cursor
    deploymentId
    sequence
    step
    status
    text
    at
    deployment {
      org
      repo
    }
  }
}
`,
  },
  {
    query: `# The current state of one deployment, then its events.
# Enter its id in the variables.
subscription OneDeployment($deploymentId: ID!) {
  deploymentStatus(deploymentId: $deploymentId) {
    cursor
    sequence
    step
    status
    text
    progress {
      done
      total
      unit
    }
    waitingUntil
    error {
      code
      message
      retryable
    }
  }
}
`,
    variables: toJson({ deploymentId: '' }),
  },
  {
    query: `# Every event after a cursor, without gaps or repeats.
# Enter the cursor in the variables.
subscription Resume($after: String!) {
  deploymentStatus(after: $after) {
    cursor
    deploymentId
    sequence
    status
    text
  }
}
`,
    variables: toJson({ after: '' }),
  },
  {
    query: `# Cancels a deployment, including its current call
# to GitHub.
mutation Cancel($id: ID!) {
  cancelDeployment(id: $id) {
    id
    status
    text
  }
}
`,
    variables: toJson({ id: '' }),
  },
  {
    query: `# Retries a deployment from the step that failed.
mutation Retry($id: ID!) {
  retryDeployment(id: $id) {
    id
    status
    text
    attempt
  }
}
`,
    variables: toJson({ id: '' }),
  },
  {
    query: `# One deployment with its events so far.
query OneDeploymentWithEvents($id: ID!) {
  deployment(id: $id) {
    id
    org
    repo
    status
    text
    repositoryUrl
    cloneUrl
    commitSha
    fileCount
    sizeBytes
    events {
      sequence
      step
      status
      text
      at
    }
  }
}
`,
    variables: toJson({ id: '' }),
  },
  {
    query: `# Deployments, newest first. For the next page, pass
# the endCursor as "after".
query Deployments($first: Int = 20, $after: String, $status: [DeploymentStatus!]) {
  deployments(first: $first, after: $after, status: $status) {
    edges {
      node {
        id
        org
        repo
        status
        text
        createdAt
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
  }
}
`,
    variables: toJson({ first: 5, status: null }),
  },
]

function toJson(value: unknown): string {
  return JSON.stringify(value, null, 2)
}
