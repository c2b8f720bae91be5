import type { ServiceName } from '../config.ts'

/**
 * What the wire must do, derived from the state alone; the reconciler makes the kernel agree.
 *
 * - `bare`: a plain bridge and nothing else: nobody could be answered by us.
 * - `wire`: a bridge that does not let a refusal pass; new connections to `held` services wait at the door.
 * - `stand-in`: every protected port is ours (divert) and production's address is claimed on the first network.
 *   While `frozen`, frames of our users' flows are dropped, so that nothing changes during the last pass (≤ 500 ms).
 * - `steer`: new connections go to production; flows that are ours already finish here.
 */
export type Posture =
  | { readonly name: 'bare' }
  | { readonly name: 'wire'; readonly held: readonly ServiceName[] }
  | { readonly name: 'stand-in'; readonly frozen: boolean }
  | { readonly name: 'steer' }
