/** An example of each operation, one a tab. GraphiQL keeps what a person makes of them. */
export const examples: { query: string; variables?: string }[] = [
  {
    query: `# Puts a template on the forge. It answers at once; what follows is told by deploymentStatus.
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
    query: `# Puts files on the forge. The same idempotencyKey with the same input makes one deployment, however often it is sent.
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
    query: `# Every deployment: the state of each active one, then all that happens. Deploy in another window.
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
    query: `# One deployment: put its id below.
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
    query: `# Everything since a cursor: put the last one you saw below. Nothing is left out, nothing comes twice.
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
    query: `mutation Cancel($id: ID!) {
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
    query: `query OneDeploymentWithEvents($id: ID!) {
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
    query: `# Newest first; for the next page, "after" takes the endCursor of this one.
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
  {
    query: `query Templates {
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
]

function json(value: unknown): string {
  return JSON.stringify(value, null, 2)
}
