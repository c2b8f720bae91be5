import type { ServiceName } from '../config.ts'

/**
 * What was seen, and when. `probe` is a fresh connection of ours, `session` our warm connection, `users` what the
 * wire shows. Times are points on one monotonic clock, in milliseconds.
 */
export type Evidence =
  | { readonly kind: 'carrier'; readonly up: boolean; readonly atMs: number }
  /** A fresh probe had its greeting. `sound`: everything it tried worked, the logged-in round trip too. */
  | {
      readonly kind: 'answered'
      readonly service: ServiceName
      readonly askedMs: number
      readonly atMs: number
      readonly sound: boolean
    }
  /** Production's kernel completed a probe's handshake; its service has not said anything yet. */
  | { readonly kind: 'accepted'; readonly service: ServiceName; readonly atMs: number }
  /** The service said something on a connection made earlier. */
  | {
      readonly kind: 'alive'
      readonly service: ServiceName
      readonly by: 'session' | 'users'
      readonly atMs: number
    }
  | {
      readonly kind: 'refused'
      readonly service: ServiceName
      readonly by: 'probe' | 'users'
      readonly atMs: number
    }
  | {
      readonly kind: 'silent'
      readonly service: ServiceName
      readonly by: 'probe' | 'session' | 'users'
      readonly sinceMs: number
      readonly atMs: number
    }
  /** Production ended a connection that we keep. */
  | { readonly kind: 'lost'; readonly service: ServiceName; readonly atMs: number }
  /** The appliance itself could not ask: says nothing about production. */
  | { readonly kind: 'unable'; readonly service: ServiceName; readonly atMs: number }
  | { readonly kind: 'standing-in'; readonly on: boolean; readonly atMs: number }
  | { readonly kind: 'time'; readonly atMs: number }
