import { readFile } from 'node:fs/promises'
import type { Service, Settings } from '../config.ts'
import {
  type Credential,
  greetImap,
  IMAP_FAREWELL,
  LoginRefused,
  logIn,
  noop,
} from './probes/imap.ts'
import { probe } from './probes/probe.ts'
import { type Endpoint, Line } from './probes/tcp.ts'
import type { AskFresh } from './service-watch.ts'
import type { OpenSession } from './session-watch.ts'

/** The ways to production; a simulation gives its own. */
export type Reach = {
  fresh(service: Service): AskFresh
  /** A logged-in session, for the services that have such a thing. */
  session(service: Service): OpenSession | undefined
}

/**
 * Reaches the real production from the appliance's own address. `account` is the one that the admin credential
 * opens for the logged-in round trip; without it there is none.
 */
export function productionReach(settings: Settings, account: string | undefined): Reach {
  const { addresses, hostname, admin } = settings.production
  const endpoint = ({ port, tls }: Pick<Service, 'port' | 'tls'>): Endpoint => ({
    host: addresses[0]?.ipv4 ?? '',
    port,
    tls,
    hostname,
  })
  return {
    fresh: (service) => (options) => probe(service.protocol, endpoint(service), options),
    session: (service) => {
      if (service.protocol !== 'imap' || account === undefined) return undefined
      const tls = service.port === admin.imapPort ? admin.imapTls : service.tls
      const open = endpoint({ port: service.port, tls })
      return async (signal) => openSession(open, await credential(admin, account), signal)
    },
  }
}

async function credential(
  { user, method, passwordFile }: Settings['production']['admin'],
  account: string,
): Promise<Credential> {
  // Read each time: an administrator changes it without telling us.
  const text = await readFile(passwordFile, 'utf8').catch((error: unknown) => {
    throw new LoginRefused(`${passwordFile} cannot be read: ${String(error)}`)
  })
  return { user, method, account, password: text.replace(/\r?\n$/, '') }
}

async function openSession(
  endpoint: Endpoint,
  credentials: Credential,
  signal: AbortSignal,
): ReturnType<OpenSession> {
  const line = await Line.open(endpoint, signal)
  try {
    await greetImap(line, true)
    await logIn(line, credentials)
  } catch (error: unknown) {
    line.close()
    throw error
  }
  return {
    over: line.over,
    get ended() {
      return line.ended !== undefined
    },
    noop: () => noop(line),
    close: () => line.close(IMAP_FAREWELL),
  }
}
