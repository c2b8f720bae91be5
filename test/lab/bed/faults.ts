import { setTimeout as delay } from 'node:timers/promises'
import { dropAll, linkDown, linkUp, passAll } from './network.ts'
import type { Production } from './production.ts'

const FLAP_MS = 300

/** What can be done to production, each as it happens in life. */
export const FAULTS = {
  'link-down': 'its cable is pulled',
  kill: 'all its mail servers die at once',
  stop: 'all its mail servers hang: the kernel still answers, they do not',
  blackhole: 'its link stays up, but not a frame passes',
  restart: 'its administrator restarts Dovecot',
  flap: `its cable is out for ${FLAP_MS} ms`,
} as const
export type Fault = keyof typeof FAULTS

export const isFault = (word: string): word is Fault => Object.hasOwn(FAULTS, word)

/** Does it. `restart` and `flap` are over when this answers; the others last until `heal`. */
export async function inflict(fault: Fault, prefix: string, production: Production): Promise<void> {
  switch (fault) {
    case 'link-down':
      return linkDown(prefix)
    case 'kill':
      return production.signal('SIGKILL')
    case 'stop':
      return production.signal('SIGSTOP')
    case 'blackhole':
      return dropAll(prefix)
    case 'restart':
      await production.stopDovecot()
      return production.startDovecot()
    case 'flap':
      await linkDown(prefix)
      await delay(FLAP_MS)
      return linkUp(prefix)
  }
}

/** Undoes whatever is in force; where nothing is, nothing changes. */
export async function heal(prefix: string, production: Production): Promise<void> {
  await production.signal('SIGCONT')
  await production.start()
  await passAll(prefix)
  await linkUp(prefix)
}
