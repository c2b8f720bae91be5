// Goal: against real servers, a death is seen as refusal, a freeze as silence, and a wrong credential as our problem.
// Method: Dovecot and a small SMTP server on loopback ports; each fault for real, waiting for verdicts, not for time.
import { readFileSync } from 'node:fs'
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Service, settingsFrom } from '../../agent/config.ts'
import { Health, type ServiceVerdict } from '../../agent/health/health.ts'
import { probe } from '../../agent/health/probes/probe.ts'
import { systemClock } from '../../firmware/clock.ts'
import { makeMailCertificates } from './bed/certificates.ts'
import {
  freePorts,
  type LoopbackProduction,
  loopbackProduction,
  loopbackSettings,
} from './loopback-dovecot.ts'

const test = suite('health against real servers')
const DEADLINE_MS = 20_000

/** A mail server that greets and knows EHLO, or keeps silent. */
class SmtpStub {
  mute = false
  readonly sockets = new Set<Socket>()
  readonly #server: Server = createServer((socket) => this.#serve(socket))

  listen(port: number): Promise<void> {
    return new Promise((resolve) => this.#server.listen(port, '127.0.0.1', resolve))
  }

  close(): void {
    this.#server.close()
    for (const socket of this.sockets) socket.resetAndDestroy()
  }

  #serve(socket: Socket): void {
    this.sockets.add(socket)
    socket.on('close', () => this.sockets.delete(socket))
    socket.on('error', () => socket.destroy())
    const say = (text: string) => this.mute || socket.write(`${text}\r\n`)
    say('220 mail.example.test ESMTP')
    socket.on('data', (line) => {
      say(line.toString().startsWith('EHLO') ? '250-mail.example.test\r\n250 SIZE' : '221 bye')
    })
  }
}

/** One watched production: a real Dovecot and the SMTP stub. */
class Bed {
  readonly directory: string
  readonly production: LoopbackProduction
  readonly smtp = new SmtpStub()
  readonly #smtpPort: number
  readonly verdicts: ServiceVerdict[] = []
  readonly returns: string[] = []
  readonly #abort = new AbortController()
  readonly #health: Health
  #running: Promise<void> = Promise.resolve()

  private constructor(directory: string, production: LoopbackProduction, smtpPort: number) {
    this.directory = directory
    this.production = production
    this.#smtpPort = smtpPort
    const base = loopbackSettings(directory, production.imapPort)
    const services = [
      { port: production.imapPort, protocol: 'imap', tls: 'none' },
      { port: smtpPort, protocol: 'smtp', tls: 'none' },
    ]
    const settings = settingsFrom(
      { ...base, production: { ...base.production, services }, judgement: { holdMs: 2_000 } },
      'test',
    )
    this.#health = new Health({
      settings,
      log: () => {},
      clock: systemClock,
      on: (verdict) => this.verdicts.push(verdict),
      returned: (because) => this.returns.push(because),
      account: 'ann',
    })
  }

  static async make(): Promise<Bed> {
    const directory = await mkdtemp(join(tmpdir(), `ut${process.pid}-health-`))
    const production = await loopbackProduction(directory, ['ann'])
    const [smtpPort = 0] = await freePorts(1)
    return new Bed(directory, production, smtpPort)
  }

  get health(): Health {
    return this.#health
  }

  get imap() {
    return `imap:${this.production.imapPort}` as const
  }

  get smtpName() {
    return `smtp:${this.#smtpPort}` as const
  }

  async start(): Promise<void> {
    await Promise.all([this.production.server.start(), this.smtp.listen(this.#smtpPort)])
    this.#running = this.#health.run(this.#abort.signal)
    await this.said(this.imap, 'healthy')
    await this.said(this.smtpName, 'healthy')
    await this.until('a logged-in session', () => this.statusOf(this.imap).roundTrip === true)
  }

  signal(name: NodeJS.Signals): void {
    const { pid } = this.production.server
    for (const one of [pid, ...this.#children()]) process.kill(one, name)
  }

  async said(service: string, verdict: ServiceVerdict['verdict']): Promise<ServiceVerdict> {
    let found: ServiceVerdict | undefined
    await this.until(`${service} ${verdict}`, () => {
      found = this.verdicts.find((one) => one.service === service && one.verdict === verdict)
      return found !== undefined
    })
    if (found === undefined) throw new Error('unreachable')
    return found
  }

  async until(what: string, holds: () => boolean): Promise<void> {
    for (const deadline = Date.now() + DEADLINE_MS; !holds(); await delay(5))
      if (Date.now() > deadline)
        throw new Error(`${what}: not in time; ${JSON.stringify(this.verdicts)}`)
  }

  statusOf(service: string) {
    const status = this.#health.status().services.find((one) => one.service === service)
    if (status === undefined) throw new Error(`no status of ${service}`)
    return status
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#running
    this.smtp.close()
    await this.production.server.stop()
    await rm(this.directory, { recursive: true, force: true })
  }

  #children(): number[] {
    const { pid } = this.production.server
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .split(' ')
      .filter(Boolean)
      .map(Number)
  }
}

async function withBed(act: (bed: Bed) => Promise<void>): Promise<void> {
  const bed = await Bed.make()
  try {
    await bed.start()
    await act(bed)
  } finally {
    await bed.close()
  }
}

test('servers that are killed are suspected at once and failed when refusals have lasted', () =>
  withBed(async (bed) => {
    bed.verdicts.length = 0
    const killedMs = systemClock.now()
    bed.signal('SIGKILL')
    const suspected = await bed.said(bed.imap, 'suspected')
    const failed = await bed.said(bed.imap, 'failed')
    process.stdout.write(
      `  killed: suspected after ${Math.round(suspected.atMs - killedMs)} ms, failed after ${Math.round(failed.atMs - killedMs)} ms\n`,
    )
    assert.match(failed.because, /refused/)
    assert.ok(failed.atMs - killedMs >= 1_500)
    assert.not(bed.verdicts.some(({ service }) => service === bed.smtpName))
  }))

test('a master killed while its sessions live on is failed as well', () =>
  withBed(async (bed) => {
    bed.verdicts.length = 0
    const killedMs = systemClock.now()
    process.kill(bed.production.server.pid, 'SIGKILL')
    const failed = await bed.said(bed.imap, 'failed')
    process.stdout.write(
      `  master killed: failed after ${Math.round(failed.atMs - killedMs)} ms, ${failed.because}\n`,
    )
  }))

test('servers that hang are silent, and healthy again when they go on', () =>
  withBed(async (bed) => {
    bed.verdicts.length = 0
    const stoppedMs = systemClock.now()
    bed.signal('SIGSTOP')
    bed.smtp.mute = true
    const failed = await bed.said(bed.imap, 'failed')
    const smtp = await bed.said(bed.smtpName, 'failed')
    process.stdout.write(
      `  stopped: imap failed after ${Math.round(failed.atMs - stoppedMs)} ms, smtp after ${Math.round(smtp.atMs - stoppedMs)} ms\n`,
    )
    assert.is(failed.because, 'no answer')
    bed.verdicts.length = 0
    bed.smtp.mute = false
    const resumedMs = systemClock.now()
    bed.signal('SIGCONT')
    const healthy = await bed.said(bed.imap, 'healthy')
    process.stdout.write(`  resumed: healthy after ${Math.round(healthy.atMs - resumedMs)} ms\n`)
  }))

test('a wrong admin credential is a problem for a person, not a failure of production', () =>
  withBed(async (bed) => {
    await writeFile(join(bed.directory, 'admin-password'), 'wrong\n')
    bed.signal('SIGKILL')
    await bed.said(bed.imap, 'suspected')
    await bed.production.server.start()
    await bed.until('healthy again', () => bed.statusOf(bed.imap).verdict === 'healthy')
    await bed.until('the problem is told', () => bed.statusOf(bed.imap).problem !== undefined)
    process.stdout.write(`  ${bed.statusOf(bed.imap).problem}\n`)
    assert.match(bed.statusOf(bed.imap).problem ?? '', /credential.*AUTHENTICATIONFAILED/)
    bed.verdicts.length = 0
    await delay(2_500)
    assert.equal(bed.verdicts, [])
  }))

test('while we stand in, production has returned when logged-in round trips have lasted', () =>
  withBed(async (bed) => {
    bed.signal('SIGKILL')
    await bed.said(bed.imap, 'failed')
    bed.health.standingIn(true)
    bed.verdicts.length = 0
    await delay(500)
    assert.equal(bed.returns, [])
    await bed.production.server.start()
    const startedMs = systemClock.now()
    const healthy = await bed.said(bed.imap, 'healthy')
    await bed.until('returned', () => bed.returns.length > 0)
    process.stdout.write(
      `  back: trusted after ${Math.round(healthy.atMs - startedMs)} ms of 2000\n`,
    )
    assert.ok(healthy.atMs - startedMs >= 2_000)
    assert.is(bed.statusOf(bed.imap).roundTrip, true)
  }))

test('probes speak TLS as the settings say, and a garbled TLS is not silence', async () => {
  const bed = await Bed.make()
  const { production } = await makeMailCertificates(join(bed.directory, 'certificates'))
  const [imaps = 0, pop3 = 0, pop3s = 0] = await freePorts(3)
  await appendFile(
    join(bed.directory, 'dovecot.conf'),
    `
ssl = yes
ssl_cert = <${production.certificate}
ssl_key = <${production.key}
protocols = imap pop3 lmtp
service imap-login {
  inet_listener imaps {
    port = ${imaps}
    ssl = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = ${pop3}
  }
  inet_listener pop3s {
    port = ${pop3s}
    ssl = yes
  }
}
`,
  )
  await bed.production.server.start()
  try {
    const imap = bed.production.imapPort
    assert.match(await heard('imap', imaps, 'implicit'), /^\* OK/)
    assert.match(await heard('imap', imap, 'starttls'), /^\* OK/)
    assert.match(await heard('pop3', pop3, 'starttls'), /^\+OK/)
    assert.match(await heard('pop3', pop3s, 'implicit'), /^\+OK/)
    assert.match(await heard('imap', imap, 'implicit'), /^garbled/)
  } finally {
    await bed.close()
  }
})

async function heard(
  protocol: Service['protocol'],
  port: number,
  tls: Service['tls'],
): Promise<string> {
  const endpoint = { host: '127.0.0.1', port, tls, hostname: 'mail.example.test' }
  const { result, kept } = await probe(protocol, endpoint, {
    signal: AbortSignal.timeout(DEADLINE_MS),
    thorough: true,
    accepted: () => {},
    now: () => performance.now(),
  })
  kept?.close()
  return result.heard ? result.said : `${result.because}: ${result.said}`
}

test.run()
