import type { Settings } from '../config.ts'
import { accountOf } from './accounts.ts'

/**
 * Who receives mail to an address: `users` are accounts that we hold; `unknown-local` is in one of production's
 * domains, but nobody that we know; `elsewhere` is another domain.
 */
export type Destination = { readonly users: readonly string[] } | 'unknown-local' | 'elsewhere'

/** Whom an address means. An alias goes before an account of the same name, as it does on mail servers. */
export function resolve(
  address: string,
  settings: Pick<Settings, 'accounts'> & {
    readonly production: { readonly domains: readonly string[] }
  },
  users: ReadonlySet<string> | ReadonlyMap<string, unknown>,
): Destination {
  const { domains } = settings.production
  const wanted = address.trim().toLowerCase()
  const at = wanted.lastIndexOf('@')
  if (at >= 0 && !domains.includes(wanted.slice(at + 1))) return 'elsewhere'
  const bare = at < 0 ? wanted : wanted.slice(0, at)
  const alias = Object.entries(settings.accounts.aliases).find(([name]) => {
    const lower = name.toLowerCase()
    return lower === wanted || lower === bare
  })
  const names = alias === undefined ? [wanted] : alias[1]
  const found = names.flatMap((name) => accountOf(name, domains, users) ?? [])
  return found.length === 0 ? 'unknown-local' : { users: [...new Set(found)] }
}
