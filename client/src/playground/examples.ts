/** An example of each operation, one a tab. GraphiQL keeps what a person makes of them. */
export const examples: { query: string; variables?: string }[] = [
  // GraphiQL shows the variables of the first tab only after another one was open, so it has none.
  {
    query: `# What there is to start from.
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
    query: `# Deploys a template. It answers at once;
# deploymentStatus tells the rest.
mutation DeployTemplate($input: DeployInput!) {
  deploy(input: $input) {
    id
    status
    text
  }
}
`,
    variables: json({
      input: {
        org: 'acme',
        repo: 'hello-world',
        visibility: 'PRIVATE',
        description: 'Made in the playground',
        contents: { template: { name: 'hello-world' } },
      },
    }),
  },
  {
    query: `# Deploys files. Sent again with the same key
# and input, it is still one deployment.
mutation DeployFiles($input: DeployInput!) {
  deploy(input: $input) {
    id
    status
    text
  }
}
`,
    variables: json({
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
    query: `# The state of each active deployment,
# then all that happens to any of them.
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
    query: `# The state of one deployment, then the rest.
# Put its id below.
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
    variables: json({ deploymentId: '' }),
  },
  {
    query: `# Everything since the cursor that you put below:
# nothing is left out, nothing comes twice.
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
    variables: json({ after: '' }),
  },
  {
    query: `# Stops a deployment, the call to GitHub included.
mutation Cancel($id: ID!) {
  cancelDeployment(id: $id) {
    id
    status
    text
  }
}
`,
    variables: json({ id: '' }),
  },
  {
    query: `# Goes on from the step that failed.
mutation Retry($id: ID!) {
  retryDeployment(id: $id) {
    id
    status
    text
    attempt
  }
}
`,
    variables: json({ id: '' }),
  },
  {
    query: `# One deployment, with what happened to it so far.
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
    variables: json({ id: '' }),
  },
  {
    query: `# Newest first. "after" takes the endCursor
# of the page before.
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
    variables: json({ first: 5, status: null }),
  },
]

function json(value: unknown): string {
  return JSON.stringify(value, null, 2)
}
