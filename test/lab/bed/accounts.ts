import { argon2Sync, randomBytes } from 'node:crypto'
import { random } from '../../fakes/random.ts'
import { here } from './tools.ts'

export type Account = { readonly user: string; readonly password: string }
export type HashedAccount = Account & { readonly hash: string }

/** The credential that may open every account. */
export const ADMIN: Account = { user: 'admin', password: 'admin-of-the-lab' }

const NAMES = (
  'anna ben chloe david emma felix grace hugo ines jonas klara li.wei ' +
  'mara noah olga paul quinn rosa sven tara uma viktor wanda yusuf'
).split(' ')

/** The first `count` accounts, the same in every bed. Some passwords have characters that need quoting. */
export function someAccounts(count: number): Account[] {
  const draw = random(77)
  return Array.from({ length: count }, (_, index) => {
    const user = NAMES[index] ?? `user${index + 1}`
    const secret = Math.floor(draw() * 36 ** 8).toString(36)
    return { user, password: index % 5 === 1 ? `${secret} "\\*{7}%` : secret }
  })
}

/**
 * Accounts from a file: JSON `[{"user","password"}…]`, or a line `user:password` each.
 * @throws {Error} that names the line.
 */
export function accountsFrom(text: string): Account[] {
  if (text.trimStart().startsWith('[')) return accountsFromJson(text)
  return text.split('\n').flatMap((line, index) => {
    if (line.trim() === '' || line.startsWith('#')) return []
    const colon = line.indexOf(':')
    if (colon < 1) throw new Error(`line ${index + 1} is not user:password`)
    return [{ user: line.slice(0, colon), password: line.slice(colon + 1) }]
  })
}

function accountsFromJson(text: string): Account[] {
  const data: unknown = JSON.parse(text)
  if (!Array.isArray(data)) throw new Error('not a list of {user, password}')
  return data.map((entry: { user?: unknown; password?: unknown }, index) => {
    if (typeof entry.user !== 'string' || typeof entry.password !== 'string')
      throw new Error(`entry ${index + 1} is not {user, password}`)
    return { user: entry.user, password: entry.password }
  })
}

/** Gives each account a hash as a real server would hold it: the two schemes met most, in turn. */
export async function hashed(accounts: readonly Account[]): Promise<HashedAccount[]> {
  const input = accounts.map(({ password }) => password).join('\n')
  const crypted = (await here('openssl', ['passwd', '-6', '-stdin'], `${input}\n`)).split('\n')
  return accounts.map((account, index) => {
    const hash = index % 2 === 0 ? `{SHA512-CRYPT}${crypted[index]}` : argon2id(account.password)
    return { ...account, hash }
  })
}

function argon2id(password: string): string {
  const nonce = randomBytes(16)
  const [memory, passes, parallelism] = [8_192, 2, 1]
  const options = { message: password, nonce, parallelism, tagLength: 32, memory, passes }
  const tag = argon2Sync('argon2id', options)
  const cost = `m=${memory},t=${passes},p=${parallelism}`
  return `{ARGON2ID}$argon2id$v=19$${cost}$${unpadded(nonce)}$${unpadded(tag)}`
}

const unpadded = (bytes: Buffer): string => bytes.toString('base64').replace(/=+$/, '')

/** The passwd-file(5) of Dovecot, as an administrator exports it. */
export const passwdFile = (accounts: readonly HashedAccount[]): string =>
  accounts.map(({ user, hash }) => `${user}:${hash}\n`).join('')
