import { randomInt } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The three networks' addresses: the same in every bed, since each bed has namespaces of its own. */
export const USERS = {
  ipv4: ['10.77.0.10', '10.77.0.11'],
  ipv6: 'fd77::10',
  mac: '02:77:00:00:00:10',
} as const
export const PRODUCTION = { ipv4: '10.77.0.2', ipv6: 'fd77::2', mac: '02:77:00:00:00:02' } as const
export const MANAGEMENT = { ipv4: '10.77.0.3', ipv6: 'fd77::3', mac: '02:77:00:00:00:03' } as const
/** The operations centre's broker, on the users' side of the appliance. */
export const BROKER = { ipv4: '10.77.0.12', port: 8883 } as const

export const HOSTNAME = 'mail.example.test'
export const DOMAIN = 'example.test'
export const PORTS = {
  ssh: 22,
  smtp: 25,
  submission: 587,
  submissions: 465,
  imap: 143,
  imaps: 993,
  pop3: 110,
  pop3s: 995,
} as const

export type NamespaceRole = 'users' | 'appliance' | 'production'
export const ROLES: readonly NamespaceRole[] = ['users', 'appliance', 'production']

/** The name under which ip-netns(8) knows a bed's namespace. */
export const namespaceOf = (prefix: string, role: NamespaceRole | 'svc'): string =>
  `${prefix}${role}`

/**
 * A prefix nobody else uses: `us` and four characters. Short, because it also stands in interface names
 * (15 characters at most) and in the paths of sockets (107 bytes at most).
 */
export const newPrefix = (): string =>
  `us${randomInt(36 ** 4)
    .toString(36)
    .padStart(4, '0')}-`

/** A prefix as somebody typed it, with or without its dash. @throws {RangeError} */
export function prefixFrom(text: string): string {
  if (/^us[a-z0-9]{4}-?$/.test(text)) return `${text.slice(0, 6)}-`
  throw new RangeError(`${text} is no prefix of a bed: it is us and four characters, as in us4f2k`)
}

const bare = (prefix: string): string => prefix.replace(/-$/, '')

/** Where a bed keeps everything it writes. */
export const directoryOf = (prefix: string): string => join(tmpdir(), bare(prefix))

/** Where a bed's record is found by later invocations. */
export const recordPathOf = (prefix: string): string =>
  join(tmpdir(), `understudy-lab-${bare(prefix)}.json`)
