// Goal: a probe's result says what production did, in every way it can misbehave, and no connection stays open.
// Method: small servers on loopback that greet, garble, hang up, say too much or say nothing.
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Service } from '../../agent/config.ts'
import { LoginRefused, logIn } from '../../agent/health/probes/imap.ts'
import { probe } from '../../agent/health/probes/probe.ts'
import { Line, reasonOf } from '../../agent/health/probes/tcp.ts'

const test = suite('probes')

type Script = (say: (text: string) => void, socket: Socket) => (line: string) => void

/** A server that follows a script; it counts who is connected. */
class ScriptedServer {
  readonly sockets = new Set<Socket>()
  readonly #server: Server

  constructor(script: Script) {
    this.#server = createServer((socket) => {
      this.sockets.add(socket)
      socket.on('close', () => this.sockets.delete(socket))
      socket.on('error', () => socket.destroy())
      const hear = script((text) => socket.write(`${text}\r\n`), socket)
      socket.on('data', (data) => {
        for (const line of data.toString().split('\r\n').filter(Boolean)) hear(line)
      })
    })
  }

  async listen(): Promise<number> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    return (this.#server.address() as AddressInfo).port
  }

  async close(): Promise<void> {
    this.#server.close()
    await Promise.all([...this.sockets].map((socket) => socket.closed || once(socket, 'close')))
  }
}

const endpoint = (port: number) =>
  ({ host: '127.0.0.1', port, tls: 'none', hostname: 'h' }) as const

async function ask(protocol: Service['protocol'], script: Script, limitMs = 10_000) {
  const server = new ScriptedServer(script)
  const abort = new AbortController()
  const limit = setTimeout(() => abort.abort(), limitMs)
  const accepted: number[] = []
  try {
    const { result, kept } = await probe(protocol, endpoint(await server.listen()), {
      signal: abort.signal,
      thorough: false,
      accepted: () => accepted.push(1),
      now: () => performance.now(),
    })
    assert.is(accepted.length, 1)
    kept?.close()
    return result
  } finally {
    clearTimeout(limit)
    await server.close()
  }
}

const because = async (...args: Parameters<typeof ask>) => {
  const result = await ask(...args)
  return result.heard ? result.said : result.because
}

const imap: Script = (say) => {
  say('* OK ready')
  return (line) => {
    if (line.includes('CAPABILITY')) say('* CAPABILITY IMAP4rev1 IDLE\r\na1 OK done')
  }
}

test('each protocol is greeted in its own words', async () => {
  assert.is(await because('imap', imap), '* OK ready')
  const pop3: Script = (say) => {
    say('+OK ready')
    return (line) => say(line === 'CAPA' ? '+OK\r\nTOP\r\nUIDL\r\n.' : '+OK bye')
  }
  assert.is(await because('pop3', pop3), '+OK ready')
  const smtp: Script = (say) => {
    say('220 h ESMTP')
    return (line) => say(line.startsWith('EHLO [127.0.0.1]') ? '250-h\r\n250 SIZE' : '221 bye')
  }
  assert.is(await because('smtp', smtp), '220 h ESMTP')
  assert.is(await because('submission', smtp), '220 h ESMTP')
})

test('a server without CAPA, and one that delays its banner, are heard all the same', async () => {
  const old: Script = (say) => {
    say('+OK ready')
    return () => say('-ERR unknown command')
  }
  assert.is(await because('pop3', old), '+OK ready')
  const postscreen: Script = (say) => {
    say('220-wait')
    return () => {}
  }
  assert.is(await because('smtp', postscreen), '220-wait')
})

test('a greeting in the wrong words is garbled', async () => {
  const saying =
    (text: string): Script =>
    (say) => {
      say(text)
      return () => {}
    }
  assert.is(await because('imap', saying('* BYE too many connections')), 'garbled')
  assert.is(await because('pop3', saying('-ERR busy')), 'garbled')
  assert.is(await because('smtp', saying('421 4.3.2 try again later')), 'garbled')
  assert.is(await because('imap', saying('SSH-2.0-server')), 'garbled')
})

test('a flood is garbled, whether in one line or in many', async () => {
  assert.is(
    await because('imap', (_say, socket) => {
      socket.write('x'.repeat(20_000))
      return () => {}
    }),
    'garbled',
  )
  assert.is(
    await because('pop3', (say) => {
      say('+OK')
      return () => say(`+OK\r\n${'word\r\n'.repeat(20_000)}`)
    }),
    'garbled',
  )
})

test('a server that hangs up has reset, one that says nothing is silent', async () => {
  const hangsUp: Script = (_say, socket) => {
    socket.end()
    return () => {}
  }
  assert.is(await because('imap', hangsUp), 'reset')
  assert.is(await because('imap', () => () => {}, 50), 'silent')
})

test('a closed port refuses', async () => {
  const server = new ScriptedServer(imap)
  const port = await server.listen()
  await server.close()
  const { result } = await probe('imap', endpoint(port), {
    signal: new AbortController().signal,
    thorough: false,
    accepted: () => {},
    now: () => performance.now(),
  })
  assert.is(result.heard ? 'heard' : result.because, 'refused')
})

test('what the appliance itself lacks is not held against production', () => {
  const reason = (code: string) => reasonOf(Object.assign(new Error(code), { code })).because
  assert.is(reason('ENETUNREACH'), 'not-asked')
  assert.is(reason('EADDRNOTAVAIL'), 'not-asked')
  assert.is(reason('EMFILE'), 'not-asked')
  assert.is(reason('EHOSTUNREACH'), 'silent')
  assert.is(reason('ERR_SSL_WRONG_VERSION_NUMBER'), 'garbled')
})

test('a kept connection tells when production ends it', async () => {
  const server = new ScriptedServer(imap)
  const { kept } = await probe('imap', endpoint(await server.listen()), {
    signal: new AbortController().signal,
    thorough: false,
    accepted: () => {},
    now: () => performance.now(),
  })
  for (const socket of server.sockets) socket.resetAndDestroy()
  await kept?.over
  await server.close()
})

test('a log-in sends the credential in its form, and a refusal says why', async () => {
  for (const [method, identity] of [
    ['authzid', 'ann\0admin\0secret'],
    ['master-user', '\0ann*admin\0secret'],
  ] as const) {
    const heard: string[] = []
    const server = new ScriptedServer((say) => (line) => {
      heard.push(line)
      if (line === 'b1 AUTHENTICATE PLAIN') say('+ ')
      else say('b1 NO [AUTHENTICATIONFAILED] no such admin')
    })
    const line = await Line.open(endpoint(await server.listen()), new AbortController().signal)
    const credential = { user: 'admin', password: 'secret', method, account: 'ann' }
    const refusal = await logIn(line, credential).catch((error: unknown) => error)
    assert.instance(refusal, LoginRefused)
    assert.match(String(refusal), /AUTHENTICATIONFAILED/)
    assert.is(Buffer.from(heard[1] ?? '', 'base64').toString(), identity)
    line.close()
    await server.close()
  }
})

test.run()
