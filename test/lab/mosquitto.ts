import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Settings } from '../../agent/config.ts'
import { endChild, startChild } from '../../firmware/child.ts'
import { run } from '../../firmware/command.ts'

export type NocSettings = NonNullable<Settings['noc']>

const START_LOOKS_MAX = 200

/** The rights that docs/telemetry.md asks for, and those of a monitor. */
const RIGHTS = `pattern write understudy/%u/#

user noc
topic read understudy/#
`

/** A private Mosquitto on the loopback that speaks TLS only and demands a certificate of every client. */
export class Mosquitto {
  readonly #folder: string
  readonly #port: number
  #broker: ChildProcess | undefined
  #said = ''

  private constructor(folder: string, port: number) {
    this.#folder = folder
    this.#port = port
  }

  /** Makes the authority, the certificates and the configuration; the broker is not running yet. */
  static async prepare(): Promise<Mosquitto> {
    const mosquitto = new Mosquitto(await mkdtemp(join(tmpdir(), 'ut-noc-')), await freePort())
    await Promise.all(['ours', 'others'].map((name) => mosquitto.#authority(name)))
    await Promise.all(
      ['broker', 'lab-1', 'noc'].map((name) => mosquitto.#certificate(name, 'ours')),
    )
    await mosquitto.#certificate('stranger', 'others')
    await writeFile(mosquitto.#path('acl'), RIGHTS)
    await writeFile(mosquitto.#path('mosquitto.conf'), mosquitto.#configuration())
    return mosquitto
  }

  /** Settings of somebody with this certificate, who trusts this authority. */
  settingsFor(who: string, authority: 'ours' | 'others' = 'ours'): NocSettings {
    return {
      url: `mqtts://127.0.0.1:${this.#port}`,
      id: 'lab-1',
      caFile: this.#path(`${authority}.crt`),
      certificateFile: this.#path(`${who}.crt`),
      keyFile: this.#path(`${who}.key`),
    }
  }

  /** Starts the broker unless it runs. @throws Error with what the broker said when it does not answer. */
  async start(): Promise<void> {
    if (this.#broker !== undefined) return
    const args = ['-c', this.#path('mosquitto.conf')]
    const broker = startChild({ program: 'mosquitto', args }, { stdio: ['ignore', 'pipe', 'pipe'] })
    const hear = (text: string) => {
      this.#said = (this.#said + text).slice(-10_000)
    }
    broker.stdout?.setEncoding('utf8').on('data', hear)
    broker.stderr?.setEncoding('utf8').on('data', hear)
    this.#broker = broker
    for (let look = 0; look < START_LOOKS_MAX; look += 1) {
      if (await this.#answers()) return
      await delay(50)
    }
    throw new Error(`mosquitto does not answer: ${this.#said}`)
  }

  async stop(): Promise<void> {
    if (this.#broker !== undefined) await endChild(this.#broker)
    this.#broker = undefined
  }

  async remove(): Promise<void> {
    await this.stop()
    await rm(this.#folder, { recursive: true, force: true })
  }

  /** Sessions and retained messages outlive a restart, so that a subscriber misses nothing meanwhile. */
  #configuration(): string {
    return `listener ${this.#port} 127.0.0.1
cafile ${this.#path('ours.crt')}
certfile ${this.#path('broker.crt')}
keyfile ${this.#path('broker.key')}
tls_version tlsv1.2
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file ${this.#path('acl')}
persistence true
persistence_location ${this.#path('state')}/
user root
log_dest stderr
`
  }

  async #authority(name: string): Promise<void> {
    await mkdir(this.#path('state'), { recursive: true })
    const subject = ['-subj', `/CN=${name}`, '-days', '2', '-nodes']
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
    const files = ['-keyout', this.#path(`${name}.key`), '-out', this.#path(`${name}.crt`)]
    await openssl(['req', '-x509', ...key, ...subject, ...files])
  }

  async #certificate(name: string, authority: string): Promise<void> {
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
    const files = ['-keyout', this.#path(`${name}.key`), '-out', this.#path(`${name}.crt`)]
    const signer = ['-CA', this.#path(`${authority}.crt`), '-CAkey', this.#path(`${authority}.key`)]
    const names = ['-addext', 'subjectAltName=IP:127.0.0.1', '-subj', `/CN=${name}`, '-days', '2']
    await openssl(['req', '-x509', ...key, ...names, ...signer, ...files])
  }

  #path(name: string): string {
    return join(this.#folder, name)
  }

  #answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = net.connect(this.#port, '127.0.0.1')
      const answer = (is: boolean) => {
        socket.destroy()
        resolve(is)
      }
      socket.once('connect', () => answer(true)).once('error', () => answer(false))
    })
  }
}

const openssl = (args: readonly string[]) =>
  run({ program: 'openssl', args }, { timeoutMs: 30_000 })

/** A port that nobody listens on at this moment. */
async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
