import type { UserRecord } from '../users/records.ts'
import type { StateEntry } from './happenings.ts'

/** What was done to production, or ordered. */
export type Mark = {
  readonly kind: 'fault' | 'heal' | 'order'
  readonly label: string
  /** Since the epoch. */
  readonly atMs: number
}

/** One failure and the way back from it; what has not come yet is absent. */
export type Chapter = {
  readonly fault: 'kill' | 'link-down'
  readonly faultMs: number
  /** When the appliance began to stand in. */
  readonly failoverMs: number
  readonly healMs?: number
  /** When production had everything back. */
  readonly backMs?: number
}

/** All that happened in one run, with times since the epoch in milliseconds. */
export type Tale = {
  readonly startedMs: number
  readonly endedMs: number
  readonly states: readonly StateEntry[]
  readonly marks: readonly Mark[]
  readonly chapters: readonly Chapter[]
  /** When everybody rested, so that both sides could be compared. */
  readonly rests: readonly { readonly fromMs: number; readonly toMs: number }[]
  readonly users: readonly string[]
  readonly records: readonly UserRecord[]
}
