import type { Settings } from '../config.ts'
import { accountOf, canonical, isLocal } from './accounts.ts'

/**
 * Who receives mail to an address: `users` are accounts that we hold; `unknown-local` is in one of production's
 * domains, but nobody that we know; `elsewhere` is another domain.
 */
export type Destination = { readonly users: readonly string[] } | 'unknown-local' | 'elsewhere'

/** The part of the settings that addresses depend on. */
export type Domains = Pick<Settings, 'accounts'> & {
  readonly production: Pick<Settings['production'], 'domains'>
}

/** Whom an address means. An alias goes before an account of the same name, as it does on mail servers. */
export function resolve(
  address: string,
  { accounts, production: { domains } }: Domains,
  users: ReadonlySet<string> | ReadonlyMap<string, unknown>,
): Destination {
  const wanted = canonical(address)
  const at = wanted.lastIndexOf('@')
  if (at >= 0 && !isLocal(wanted, domains)) return 'elsewhere'
  const bare = at < 0 ? wanted : wanted.slice(0, at)
  const alias = Object.entries(accounts.aliases).find(([name]) =>
    [wanted, bare].includes(canonical(name)),
  )
  const names = alias === undefined ? [wanted] : alias[1]
  const found = names.flatMap((name) => accountOf(name, domains, users) ?? [])
  return found.length === 0 ? 'unknown-local' : { users: [...new Set(found)] }
}
