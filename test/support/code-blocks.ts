import { readFile } from 'node:fs/promises'

/** The code blocks of a document in one language, changed to use a server of the test. */
export async function codeBlocks(document: string, language: string, port: number): Promise<string[]> {
  const text = (await readFile(document, 'utf8')).replaceAll('127.0.0.1:3000', `127.0.0.1:${port}`)
  return [...text.matchAll(/```(\w+)\n(.*?)```/gs)]
    .filter(([, name]) => name === language)
    .map(([, , code]) => code!)
}
