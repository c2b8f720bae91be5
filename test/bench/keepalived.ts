import { chmod, copyFile, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Bed } from '../lab/bed/bed.ts'
import { becomeDaemon, startDaemon } from '../lab/bed/daemon.ts'
import type { Fault } from '../lab/bed/faults.ts'
import { PORTS } from '../lab/bed/plan.ts'
import { dovecotConf, dovecotConfPath } from '../lab/bed/production-dovecot.ts'
import { here, inside } from '../lab/bed/tools.ts'
import { Asker } from './asker.ts'
import { monotonicMs } from './clock.ts'
import { type AskerPlan, count, outageOf } from './questions.ts'

/** The address that the two servers share: what clients ask. */
const VIRTUAL = '10.77.0.20'
const STANDBY = '10.77.0.4'
const KEEPALIVED = '/usr/sbin/keepalived'
const DOVECOT = '/usr/sbin/dovecot'
const SETTLED_MS = 800
const AFTER_MS = 1_500
const OUTAGE_MS_MAX = 15_000
const HEALED_MS_MAX = 30_000
const POLL_MS = 100
const BEFORE_FAULT_MS = 200

export type PeerRun = { readonly outageMs: number; readonly failedConnects: number }

/**
 * What one would build without an appliance: production and a second Dovecot that share an address by VRRP
 * (keepalived.conf(5)), each with a check of its own IMAP. Lives in a bed with a plain bridge and ends with it.
 */
export class KeepalivedPair {
  readonly #bed: Bed
  readonly #standby: string
  readonly #signal: AbortSignal

  private constructor(bed: Bed, standby: string, signal: AbortSignal) {
    this.#bed = bed
    this.#standby = standby
    this.#signal = signal
  }

  /** Answers when production holds the address. */
  static async start(bed: Bed, advertS: number, signal: AbortSignal): Promise<KeepalivedPair> {
    const standby = `${bed.prefix}standby`
    await cable(bed, standby)
    await startSecondDovecot(bed, standby)
    const check = join(bed.record.directory, 'check-imap')
    await writeFile(check, CHECK)
    await chmod(check, 0o755)
    for (const [namespace, priority] of [
      [bed.namespace('production'), 150],
      [standby, 100],
    ] as const) {
      const file = (suffix: string) => join(bed.record.directory, `${namespace}.${suffix}`)
      await writeFile(file('keepalived'), keepalivedConf(priority, advertS, check))
      const files = ['-f', file('keepalived'), '-p', file('pid'), '-r', file('vrrp-pid')]
      const log = file('keepalived-log')
      await startDaemon(namespace, KEEPALIVED, ['-n', '-l', '-P', ...files], { log })
    }
    const pair = new KeepalivedPair(bed, standby, signal)
    await pair.#untilProductionHolds()
    return pair
  }

  /** One fault, from a pair at rest to a pair at rest. */
  async run(fault: Fault, plan: Omit<AskerPlan, 'host' | 'logins'>): Promise<PeerRun> {
    const asker = new Asker(this.#bed, { ...plan, host: VIRTUAL })
    while (asker.questions.length === 0) await this.#pause(plan.everyMs)
    await this.#pause(SETTLED_MS)
    const faultMs = monotonicMs()
    await this.#bed.fault(fault)
    const deadline = faultMs + OUTAGE_MS_MAX
    while (!(await this.#holds(this.#standby)) && monotonicMs() < deadline)
      await this.#pause(POLL_MS)
    await this.#pause(AFTER_MS)
    await asker.stop()
    await this.#bed.heal()
    await this.#untilProductionHolds()
    const outage = outageOf(asker.questions, 'open', faultMs - BEFORE_FAULT_MS)
    if (outage === undefined) throw new Error(`keepalived, ${fault}: no answers at all`)
    const failedConnects = count(asker.questions, 'not-connected')
    return { outageMs: outage.ms, failedConnects }
  }

  async #untilProductionHolds(): Promise<void> {
    const deadline = monotonicMs() + HEALED_MS_MAX
    const production = this.#bed.namespace('production')
    while (!(await this.#holds(production)) || (await this.#holds(this.#standby))) {
      if (monotonicMs() > deadline) throw new Error('keepalived does not give the address back')
      await this.#pause(POLL_MS)
    }
    await this.#pause(SETTLED_MS)
  }

  async #holds(namespace: string): Promise<boolean> {
    return (await inside(namespace, 'ip', ['addr', 'show', 'dev', 'eth0'])).includes(`${VIRTUAL}/`)
  }

  #pause(ms: number): Promise<void> {
    return delay(ms, undefined, { signal: this.#signal })
  }
}

async function cable(bed: Bed, standby: string): Promise<void> {
  const switchboard = bed.namespace('appliance')
  await here('ip', ['netns', 'add', standby])
  const lines = [
    `link add eth0 netns ${standby} type veth peer name eth2 netns ${switchboard}`,
    `-n ${switchboard} link set eth2 master br0 up`,
    `-n ${standby} link set lo up`,
    `-n ${standby} addr add ${STANDBY}/24 dev eth0`,
    `-n ${standby} link set eth0 up`,
  ]
  for (const line of lines) await here('ip', line.split(' '))
}

/** The same accounts, an own empty store: what counts here is who answers. */
async function startSecondDovecot(bed: Bed, standby: string): Promise<void> {
  const { directory } = bed.record
  const [first, own] = [join(directory, 'production', 'dovecot'), join(directory, 'standby')]
  await mkdir(join(own, 'mail'), { recursive: true })
  for (const file of ['users', 'masters']) await copyFile(join(first, file), join(own, file))
  const at = (file: string) => join(directory, 'certificates', file)
  const certificate = { certificate: at('production.pem'), key: at('production.key') }
  await writeFile(
    dovecotConfPath(own),
    dovecotConf({ directory: own, certificate, store: 'mdbox' }),
  )
  await becomeDaemon(standby, DOVECOT, ['-c', dovecotConfPath(own)], join(own, 'start.log'))
}

const CHECK = `#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/${PORTS.imap} || exit 1
read -r -t 0.9 greeting <&3 && [[ $greeting == '* OK'* ]]
`

const keepalivedConf = (priority: number, advertS: number, check: string): string => `
global_defs {
  vrrp_version 3
  script_user root
}
vrrp_script imap {
  script "${check}"
  interval 1
  timeout 1
  fall 1
  rise 2
}
vrrp_instance mail {
  state BACKUP
  interface eth0
  virtual_router_id 77
  priority ${priority}
  advert_int ${advertS}
  virtual_ipaddress {
    ${VIRTUAL}/24 dev eth0
  }
  track_script {
    imap
  }
}
`
