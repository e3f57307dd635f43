import type { CodegenConfig } from '@graphql-codegen/cli'

// Paths are relative to the project root, where the script runs.
const config: CodegenConfig = {
  schema: 'schema.gql',
  documents: ['client/src/**/*.{ts,tsx}', '!client/src/gql/**', '!client/src/playground/**'],
  generates: {
    'client/src/gql/': {
      preset: 'client',
      // Apollo Client masks at run time (`dataMasking`); only the masked types are generated.
      presetConfig: { fragmentMasking: false },
      config: {
        inlineFragmentTypes: 'mask',
        customDirectives: { apolloUnmask: true },
        scalars: { DateTime: 'string' },
        defaultScalarType: 'unknown',
        nonOptionalTypename: true,
        skipTypeNameForRoot: true,
        enumsAsTypes: true,
        useTypeImports: true,
      },
    },
  },
}

export default config
