import { canonical } from './accounts.ts'

/** A password file that cannot be used: each problem names its line. */
export class PasswdFileRejected extends Error {
  override readonly name = 'PasswdFileRejected'
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join('; '))
    this.problems = problems
  }
}

/** `{SCHEME}` and the hash, as production's administrator gave it. */
export type Entry = { readonly hash: string }

/** The name becomes a directory, hence neither a path nor a hidden file; control characters are never legal. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: refusing them is the purpose
const USER = /^[^./\s:\u0000-\u001f\u007f][^/\s:\u0000-\u001f\u007f]{0,199}$/u

const problemOf = (user: string, hash: string, seen: boolean): string | undefined => {
  if (!USER.test(user)) return `not a user name: "${user}"`
  if (seen) return `"${user}" is listed twice (letters' case does not distinguish accounts)`
  if (hash === '') return `"${user}" has no password: write user:{SCHEME}hash`
  if (!/^\{[A-Za-z0-9.-]+\}./.test(hash))
    return `"${user}": the password must begin with its scheme, such as {SHA512-CRYPT}`
  return undefined
}

/**
 * Users and their password hashes from the text of a passwd-file of Dovecot: `user:{SCHEME}hash`, further fields are
 * ignored, so are empty lines and `#` comments. Names are in their canonical spelling.
 * @throws {PasswdFileRejected}
 */
export function passwdEntries(text: string): Map<string, Entry> {
  const entries = new Map<string, Entry>()
  const problems: string[] = []
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue
    const [name = '', hash = ''] = line.split(':')
    const user = canonical(name)
    const problem = problemOf(user, hash, entries.has(user))
    if (problem === undefined) entries.set(user, { hash })
    else problems.push(`line ${index + 1}: ${problem}`)
  }
  if (problems.length > 0) throw new PasswdFileRejected(problems)
  return entries
}
