import type { Loss } from '../clients/line-socket.ts'

/** Milliseconds since the epoch, from a clock that does not jump. */
export const nowMs = (): number => performance.timeOrigin + performance.now()

export type Verb = 'send' | 'append' | 'flag' | 'move' | 'delete' | 'read' | 'pop3'

/**
 * How an operation ended for the one who asked: `ok` was promised, `fail` was not done and is known not to be, and with
 * `unknown` the connection was lost before the answer.
 */
export type Outcome = 'ok' | 'fail' | 'unknown'

export type Operation = {
  readonly kind: 'operation'
  readonly user: string
  readonly verb: Verb
  /** Message-ID of the item it is about, where it is about one. */
  readonly item?: string
  readonly startedMs: number
  readonly endedMs: number
  readonly outcome: Outcome
  readonly because?: string
  /** The accounts a message was sent to. */
  readonly to?: readonly string[]
  /** Where the item is to be found afterwards. */
  readonly folder?: string
  readonly flag?: string
}

/** A try to connect (and to secure the connection and to log in). */
export type Connect = {
  readonly kind: 'connect'
  readonly user: string
  readonly service: string
  readonly startedMs: number
  readonly endedMs: number
  readonly outcome: 'ok' | 'not-connected' | 'lost' | 'refused'
  readonly because?: Loss | string
  readonly certificate?: string
}

/** A session that broke while in use: its user must connect again. */
export type Lost = {
  readonly kind: 'lost'
  readonly user: string
  readonly service: string
  readonly atMs: number
  readonly because: Loss
}

/** A right password was called wrong. */
export type FalseAuth = {
  readonly kind: 'false-auth'
  readonly user: string
  readonly service: string
  readonly atMs: number
  readonly text: string
}

export type UidValidity = {
  readonly kind: 'uid-validity'
  readonly user: string
  readonly folder: string
  readonly value: number
  readonly atMs: number
}

/** One of the open-loop client's questions. */
export type Asked = {
  readonly kind: 'asked'
  readonly startedMs: number
  readonly endedMs: number
  readonly outcome: 'answered' | 'not-connected' | 'lost' | 'refused'
  readonly because?: string
}

/** The server said something unasked in IDLE. */
export type Heard = { readonly kind: 'heard'; readonly user: string; readonly atMs: number }

/** Everybody rests: nothing of theirs is under way. */
export type Paused = { readonly kind: 'paused'; readonly atMs: number }

export type UserRecord =
  | Operation
  | Connect
  | Lost
  | FalseAuth
  | UidValidity
  | Asked
  | Heard
  | Paused
export type Write = (record: UserRecord) => void

/** What the simulation's process is given. */
export type UsersPlan = {
  readonly accounts: readonly { readonly user: string; readonly password: string }[]
  readonly ca: string
  readonly seed: number
  /** Mean pause of a user between two operations. */
  readonly pauseMs: number
  readonly asker?: { readonly everyMs: number; readonly login: boolean }
}
