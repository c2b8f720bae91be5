import { domainToASCII } from 'node:url'

/** A login name or address in the one spelling in which it is compared: lower case, its domain in ASCII (RFC 5890). */
export function canonical(name: string): string {
  const lower = name.trim().toLowerCase()
  const at = lower.lastIndexOf('@')
  if (at < 0) return lower
  const domain = lower.slice(at + 1)
  return `${lower.slice(0, at)}@${domainToASCII(domain) || domain}`
}

/** Whether an address is in one of these domains. */
export const isLocal = (address: string, domains: readonly string[]): boolean =>
  domains.some((domain) => canonical(address).endsWith(canonical(`@${domain}`)))

/**
 * The account that a login name or address means, or `undefined` if it means none. In any case of letters, and with or
 * without one of production's domains: `Alice`, `alice@example.org` and `ALICE@Example.Org` are one user.
 * An account that is listed with its domain is not meant by the same name at another domain.
 */
export function accountOf(
  name: string,
  domains: readonly string[],
  users: ReadonlySet<string> | ReadonlyMap<string, unknown>,
): string | undefined {
  const wanted = canonical(name)
  if (users.has(wanted)) return wanted
  const at = wanted.lastIndexOf('@')
  if (at >= 0) {
    const bare = wanted.slice(0, at)
    return isLocal(wanted, domains) && users.has(bare) ? bare : undefined
  }
  const qualified = domains
    .map((domain) => canonical(`${wanted}@${domain}`))
    .filter((user) => users.has(user))
  return qualified.length === 1 ? qualified[0] : undefined
}
