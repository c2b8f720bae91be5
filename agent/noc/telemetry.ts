import { createHash } from 'node:crypto'
import type { Fields, Level } from '../../firmware/log.ts'
import type { Status } from '../console/status.ts'

/** One MQTT message, ready to be sent; docs/telemetry.md is the contract. */
export type Message = {
  readonly topic: string
  readonly payload: string
  readonly qos: 0 | 1
  readonly retain: boolean
}

/** Text in a payload beyond this is cut, so that no message grows with what it reports. */
const TEXT_CHARACTERS_MAX = 1_000
const LIST_ITEMS_MAX = 100
const DEPTH_MAX = 4
const EVENT_CHARACTERS_MAX = 16 * 1024
/** Fields whose text is the name of a mailbox, whole. */
const NAMES = new Set(['user', 'users', 'account', 'accounts', 'mailbox', 'folder', 'recipient'])
const WORD = /[^\s<>"'(),:;]+/g

/** Stands for a mailbox or user name: the same name has the same stand-in. Not a secret: names can be guessed. */
export const standInFor = (name: string): string =>
  createHash('sha256').update(name).digest('hex').slice(0, 12)

/** What the broker says for us when the connection ends without a farewell, and we when it ends with one. */
export const offline = (id: string): Message => ({
  topic: `understudy/${id}/status`,
  payload: JSON.stringify({ state: 'offline' }),
  qos: 1,
  retain: true,
})

/** The present status. Spans of time in it count back from `at`. */
export const statusMessage = (id: string, at: Date, status: Status): Message => ({
  topic: `understudy/${id}/status`,
  payload: JSON.stringify({ at: at.toISOString(), ...plain(bounded(status), usersIn(status)) }),
  qos: 1,
  retain: true,
})

/** What changes rarely: which release, which services, how many accounts. */
export const infoMessage = (id: string, { version, services, accounts }: Status): Message => ({
  topic: `understudy/${id}/info`,
  payload: JSON.stringify({
    version,
    services: services.map(({ service }) => service),
    accounts: { total: accounts.total, complete: accounts.complete },
  }),
  qos: 1,
  retain: true,
})

/** Something that happened, under the name that the log has for it. */
export const eventMessage = (
  id: string,
  at: Date,
  level: Level,
  event: string,
  fields: Fields = {},
): Message => {
  const head = { at: at.toISOString(), level, event }
  const payload = JSON.stringify({ ...head, fields: plain(fields, namesGivenIn(fields)) })
  return {
    topic: `understudy/${id}/events`,
    payload:
      payload.length > EVENT_CHARACTERS_MAX
        ? JSON.stringify({ ...head, fields: { omittedCharacters: payload.length } })
        : payload,
    qos: 1,
    retain: false,
  }
}

/** Whether two statuses differ in more than the passing of time. */
export const differs = (one: Status, other: Status): boolean =>
  JSON.stringify(one, timeless) !== JSON.stringify(other, timeless)

const timeless = (key: string, value: unknown): unknown => (/Ms$/.test(key) ? undefined : value)

const bounded = (status: Status): Status => ({
  ...status,
  accounts: { ...status.accounts, failing: status.accounts.failing.slice(0, LIST_ITEMS_MAX) },
})

/** Users that a status names, however their names look; its words may repeat them. */
const usersIn = ({ accounts, problems }: Status): ReadonlySet<string> =>
  new Set([
    ...accounts.failing.map(({ user }) => user),
    ...problems.flatMap(({ where }) => /^account (.+)$/.exec(where)?.[1] ?? []),
  ])

/** Mailboxes that an event names in fields of their own; its other fields may repeat them. */
const namesGivenIn = (fields: Fields): ReadonlySet<string> =>
  new Set(
    Object.entries(fields)
      .filter(([key]) => NAMES.has(key))
      .flatMap(([, value]) => value)
      .filter((value) => typeof value === 'string'),
  )

const plain = (fields: object, names: ReadonlySet<string>): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [key, shown(value, key, names, 1)]),
  )

/** A value as it may leave the house: plain, of bounded size, and without names of mailboxes. */
function shown(value: unknown, key: string, names: ReadonlySet<string>, depth: number): unknown {
  if (typeof value === 'string') return NAMES.has(key) ? standInFor(value) : textShown(value, names)
  if (typeof value === 'bigint') return Number(value)
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Error) return textShown(value.message, names)
  if (value instanceof Date) return value.toISOString()
  if (depth >= DEPTH_MAX || ArrayBuffer.isView(value)) return '…'
  if (Array.isArray(value))
    return value.slice(0, LIST_ITEMS_MAX).map((item) => shown(item, key, names, depth + 1))
  return Object.fromEntries(
    Object.entries(value)
      .slice(0, LIST_ITEMS_MAX)
      .map(([inner, item]) => [inner, shown(item, inner, names, depth + 1)]),
  )
}

function textShown(text: string, names: ReadonlySet<string>): string {
  const safe = text.replace(WORD, (word) => {
    const bare = word.replace(/\.$/, '')
    return bare.includes('@') || names.has(bare) ? standInFor(bare) + word.slice(bare.length) : word
  })
  return safe.length > TEXT_CHARACTERS_MAX ? `${safe.slice(0, TEXT_CHARACTERS_MAX)}…` : safe
}
