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
  const wanted = name.trim().toLowerCase()
  if (users.has(wanted)) return wanted
  const at = wanted.lastIndexOf('@')
  if (at >= 0) {
    const bare = wanted.slice(0, at)
    return domains.includes(wanted.slice(at + 1)) && users.has(bare) ? bare : undefined
  }
  const qualified = domains.map((domain) => `${wanted}@${domain}`).filter((user) => users.has(user))
  return qualified.length === 1 ? qualified[0] : undefined
}
