import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { CommandFailed, run } from '../../../firmware/command.ts'
import { ADMIN, type HashedAccount, passwdFile } from './accounts.ts'
import type { CertificatePair, NocCertificates } from './certificates.ts'
import { startDaemon } from './daemon.ts'
import { BROKER, DOMAIN, HOSTNAME, MANAGEMENT, namespaceOf, PORTS, PRODUCTION } from './plan.ts'
import { isAlive, signal } from './processes.ts'
import type { ApplianceRecord } from './record.ts'
import { NODE, PROJECT } from './tools.ts'

export type AppliancePlan = {
  readonly prefix: string
  readonly directory: string
  readonly accounts: readonly HashedAccount[]
  readonly certificate: CertificatePair
  readonly policy: 'aggressive' | 'default' | 'lax'
  readonly giveBack: 'automatic' | 'by-order'
  readonly holdMs: number
  readonly lingerMs: number
  readonly noc?: NocCertificates
}
export type AgentRecord = Extract<ApplianceRecord, { kind: 'agent' }>

/** The agent ended, or does not answer in time; the message ends with what it wrote last. */
export class AgentSilent extends Error {
  override readonly name = 'AgentSilent'

  constructor(written: string, cause: unknown) {
    super(`the agent does not answer; it wrote:\n${written}`, { cause })
  }
}

export const APPLIANCE_ID = 'lab-appliance'
const ANSWER_MS = 20_000
const READY_MS = 20_000
const READY_POLL_MS = 200
const LOG_TAIL_LINES = 8

const PROTECTED = [
  { port: PORTS.imap, protocol: 'imap', tls: 'starttls' },
  { port: PORTS.imaps, protocol: 'imap', tls: 'implicit' },
  { port: PORTS.pop3, protocol: 'pop3', tls: 'starttls' },
  { port: PORTS.pop3s, protocol: 'pop3', tls: 'implicit' },
  { port: PORTS.smtp, protocol: 'smtp', tls: 'starttls' },
  { port: PORTS.submission, protocol: 'submission', tls: 'starttls' },
  { port: PORTS.submissions, protocol: 'submission', tls: 'implicit' },
] as const

/** The settings an administrator of this network would write (agent/config.ts). */
export function applianceSettings(plan: AppliancePlan): object {
  const file = (name: string) => join(plan.directory, 'appliance', name)
  const { certificate, noc } = plan
  return {
    production: {
      addresses: [{ ipv4: PRODUCTION.ipv4, ipv4Prefix: 24, ipv6: PRODUCTION.ipv6, ipv6Prefix: 64 }],
      mac: PRODUCTION.mac,
      hostname: HOSTNAME,
      domains: [DOMAIN],
      services: PROTECTED,
      admin: { user: ADMIN.user, passwordFile: file('admin'), method: 'authzid' },
      tls: { certificateFile: certificate.certificate, keyFile: certificate.key },
    },
    accounts: { passwdFile: file('passwd'), complete: true },
    wire: {
      namespacePrefix: plan.prefix,
      management: {
        mac: MANAGEMENT.mac,
        ipv4: { address: MANAGEMENT.ipv4, prefix: 24 },
        ipv6: { address: MANAGEMENT.ipv6, prefix: 64 },
      },
    },
    judgement: { policy: plan.policy, giveBack: plan.giveBack, holdMs: plan.holdMs },
    serving: { lingerMs: plan.lingerMs },
    ...(noc === undefined
      ? {}
      : {
          noc: {
            url: `mqtts://${BROKER.ipv4}:${BROKER.port}`,
            id: APPLIANCE_ID,
            caFile: noc.ca,
            certificateFile: noc.appliance.certificate,
            keyFile: noc.appliance.key,
          },
        }),
  }
}

/** Writes settings and passwords, starts the agent, and answers when it can be asked for its status. */
export async function startAppliance(plan: AppliancePlan): Promise<AgentRecord> {
  const directory = join(plan.directory, 'appliance')
  const [settings, state] = [join(directory, 'settings.json'), join(directory, 'state')]
  await mkdir(state, { recursive: true })
  await writeFile(join(directory, 'admin'), `${ADMIN.password}\n`, { mode: 0o600 })
  await writeFile(join(directory, 'passwd'), passwdFile(plan.accounts), { mode: 0o600 })
  await writeFile(settings, JSON.stringify(applianceSettings(plan), null, 2))
  return launchAgent(plan.prefix, { settings, state, log: join(directory, 'agent.log') })
}

/** Starts the agent over settings and state that exist: a first start and every later one. */
export async function launchAgent(
  prefix: string,
  files: { readonly settings: string; readonly state: string; readonly log: string },
): Promise<AgentRecord> {
  const { settings, state, log } = files
  const program = join(PROJECT, 'agent', 'main.ts')
  const environment = environmentOf({ settings, state })
  const namespace = namespaceOf(prefix, 'appliance')
  const pid = await startDaemon(namespace, NODE, [program], { log, environment })
  const appliance: AgentRecord = { kind: 'agent', pid, settings, state }
  await untilItAnswers(appliance, log)
  return appliance
}

async function untilItAnswers(appliance: AgentRecord, log: string): Promise<void> {
  const deadline = performance.now() + READY_MS
  for (;;) {
    const failure = await askAppliance(appliance, ['status', '--json']).then(
      () => undefined,
      (error: unknown) => error,
    )
    if (failure === undefined) return
    if (!(failure instanceof CommandFailed)) throw failure
    if (!isAlive(appliance.pid) || performance.now() > deadline)
      throw new AgentSilent(await tail(log), failure)
    await delay(READY_POLL_MS)
  }
}

const tail = async (log: string): Promise<string> =>
  (await readFile(log, 'utf8')).trimEnd().split('\n').slice(-LOG_TAIL_LINES).join('\n')

const environmentOf = ({ settings, state }: { settings: string; state: string }) => ({
  UNDERSTUDY_SETTINGS: settings,
  UNDERSTUDY_STATE: state,
})

/** Says something to the appliance by its own command line, as its operator would. @throws {CommandFailed} */
export function askAppliance(appliance: AgentRecord, words: readonly string[]): Promise<string> {
  const environment = Object.entries(environmentOf(appliance)).map(([name, it]) => `${name}=${it}`)
  const program = join(PROJECT, 'agent', 'console', 'cli.ts')
  const args = [...environment, NODE, program, ...words]
  return run({ program: 'env', args }, { timeoutMs: ANSWER_MS })
}

/** Asks the agent to end, as a shutdown does; what it left in the kernel stays. */
export async function stopAgent({ pid }: AgentRecord, graceMs = 3_000): Promise<void> {
  const deadline = performance.now() + graceMs
  signal(pid, 'SIGTERM')
  while (isAlive(pid) && performance.now() < deadline) await delay(20)
}
