import { readFileSync } from 'node:fs'
import { findPackageJSON } from 'node:module'
import { cpus, loadavg, release, totalmem, type } from 'node:os'

const PACKAGES = [
  'ws',
  'graphql',
  'graphql-ws',
  'graphql-subscriptions',
  '@nestjs/core',
  '@nestjs/graphql',
  '@apollo/server',
  'graphql-yoga',
  'mercurius',
  'fastify',
]

/** What the figures depend on, without anything that identifies the machine. */
export function describeMachine(): Record<string, string> {
  const [cpu] = cpus()
  return {
    CPU: `${cpu?.model.trim() || 'unknown'}, ${cpus().length} cores`,
    Memory: `${Math.round(totalmem() / 1024 ** 3)} GiB`,
    Kernel: `${type()} ${release()}`,
    Node: process.version,
    'Load before': loadavg()[0]?.toFixed(2) ?? '',
    Packages: PACKAGES.map((name) => `${name} ${packageVersion(name)}`).join(', '),
  }
}

function packageVersion(name: string): string {
  const file = findPackageJSON(name, import.meta.url)!
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}
