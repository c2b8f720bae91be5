// Goal: real clients of real Dovecots and of our SMTP get right answers, and an accepted message arrives exactly once.
// Method: the whole serving floor on loopback with high ports; failures are real ones: SIGKILL, a full file system.
import { execFile, spawn } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { connect as connectTls } from 'node:tls'
import { promisify } from 'node:util'
import { createTransport } from 'nodemailer'
import { SMTPServer } from 'smtp-server'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { freePorts, Stand, type StandPlan } from './serving-stand.ts'

const exec = promisify(execFile)
const DEADLINE_MS = 30_000

/** A conversation in lines, the way a person would have it by telnet. */
class Talk {
  readonly #socket: Socket
  #heard = ''
  #closed = false

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk) => {
      this.#heard += chunk.toString('latin1')
    })
    socket.on('close', () => {
      this.#closed = true
    })
    // Seen by who waits for an answer that does not come.
    socket.on('error', () => {})
  }

  static plain = (port: number): Talk => new Talk(connect(port, '127.0.0.1'))

  static tls = (port: number): Talk =>
    new Talk(connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false }))

  async hear(pattern: RegExp): Promise<string> {
    const end = performance.now() + DEADLINE_MS
    while (!pattern.test(this.#heard)) {
      if (this.#closed || performance.now() > end)
        throw new Error(`no ${pattern} in: ${this.#heard}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    const heard = this.#heard
    this.#heard = ''
    return heard
  }

  async say(line: string, pattern: RegExp): Promise<string> {
    this.#socket.write(`${line}\r\n`)
    return await this.hear(pattern)
  }

  close(): void {
    this.#socket.destroy()
  }
}

const imapLogin = async (talk: Talk, user: string, password: string): Promise<string> => {
  await talk.hear(/\* OK/)
  const answer = await talk.say(`a LOGIN ${user} ${password}`, /^a (OK|NO|BAD)/m)
  talk.close()
  return answer
}

const mailer = (port: number, more: object = {}) =>
  createTransport({ host: '127.0.0.1', port, tls: { rejectUnauthorized: false }, ...more })

const message = (subject: string, lines = 20): string =>
  `From: <s@remote.test>\r\nSubject: ${subject}\r\n\r\n${'.dots and words\r\n'.repeat(lines)}`

type Context = { directory: string; plan: StandPlan; stand: Stand }
const test = suite<Context>('serving')

test.before(async (context) => {
  context.directory = await mkdtemp('/tmp/ut')
  context.plan = { directory: join(context.directory, 'a'), ports: await freePorts() }
  await exec('chmod', ['755', context.directory])
  context.stand = await Stand.start(context.plan)
  context.stand.front.resume()
})

test.after(async ({ stand, directory }) => {
  await stand.stop()
  await rm(directory, { recursive: true, force: true })
})

test('a right password opens IMAP, in any case and with or without the domain', async ({
  plan,
}) => {
  const { imaps } = plan.ports
  for (const [user, password] of [
    ['alice', 'secret'],
    ['ALICE@Example.ORG', 'secret'],
    ['bob', 'hunter2'],
  ] as const)
    assert.match(await imapLogin(Talk.tls(imaps), user, password), /^a OK/m)
})

test('a wrong password, an unknown user and a foreign domain are refused', async ({ plan }) => {
  const { imaps } = plan.ports
  const users = ['alice', 'nobody', 'alice@elsewhere.test', '../alice']
  const answers = users.map((user) => imapLogin(Talk.tls(imaps), user, 'wrong'))
  for (const answer of await Promise.all(answers))
    assert.match(answer, /NO \[AUTHENTICATIONFAILED\]/)
})

test('a user who may not be served is told so, never that the password is wrong', async ({
  plan,
  stand,
}) => {
  stand.admissions.set('late', 'unavailable')
  const answer = await imapLogin(Talk.tls(plan.ports.imaps), 'late', 'secret')
  assert.match(answer, /NO \[UNAVAILABLE\]/)
  const pop = Talk.plain(plan.ports.pop3)
  await pop.hear(/\+OK/)
  await pop.say('USER late', /\+OK/)
  assert.match(await pop.say('PASS secret', /^(\+OK|-ERR)/m), /-ERR \[SYS\/TEMP\]/)
  pop.close()
  stand.admissions.set('late', 'ready')
  assert.match(await imapLogin(Talk.tls(plan.ports.imaps), 'late', 'secret'), /^a OK/m)
})

test('POP3 lists what LMTP delivered', async ({ plan, stand }) => {
  await mailer(plan.ports.smtp).sendMail({
    envelope: { from: 's@remote.test', to: ['late@example.org'] },
    raw: message('for pop3'),
  })
  await stand.drained()
  const pop = Talk.plain(plan.ports.pop3)
  await pop.hear(/\+OK/)
  await pop.say('USER late@example.org', /\+OK/)
  await pop.say('PASS secret', /\+OK/)
  assert.match(await pop.say('UIDL', /\r\n\.\r\n/), /^1 \S+\r\n\.\r\n$/m)
  pop.close()
})

test('IMAP by STARTTLS shows the given certificate, and no login before it', async ({ plan }) => {
  const { imap } = plan.ports
  // Dovecot trusts its own host; a user from elsewhere comes by the door.
  const talk = Talk.plain(imap + 10_000)
  await talk.say('PROXY TCP4 10.77.0.42 10.77.0.2 4242 143', /LOGINDISABLED/)
  talk.close()
  const { stdout } = await exec('sh', [
    '-c',
    `echo "a LOGOUT" | openssl s_client -connect 127.0.0.1:${imap} -starttls imap 2>/dev/null | openssl x509`,
  ])
  const given = await readFile(join(plan.directory, 'cert.pem'), 'utf8')
  assert.is(stdout.trim(), given.trim())
})

test('the door passes the client address on', async ({ plan, stand }) => {
  const talk = Talk.plain(plan.ports.pop3 + 10_000)
  await talk.say('PROXY TCP4 10.77.0.42 10.77.0.2 4242 110', /\+OK/)
  await talk.say('USER alice', /\+OK/)
  await talk.say('PASS secret', /\+OK/)
  const said = stand.events.map(({ fields }) => JSON.stringify(fields))
  assert.ok(said.some((line) => line.includes('user=<alice>') && line.includes('rip=10.77.0.42')))
  talk.close()
})

test('the replicator opens any mailbox to the key, and none without it', async ({
  plan,
  stand,
}) => {
  const key = await readFile(join(stand.paths.run, 'doveadm.key'), 'utf8')
  const { replica } = plan.ports
  assert.match(await imapLogin(Talk.plain(replica), 'alice*understudy', key), /^a OK/m)
  const guesses = [
    imapLogin(Talk.plain(replica), 'alice*understudy', 'guess'),
    imapLogin(Talk.plain(replica), 'alice', key),
    imapLogin(Talk.plain(replica), 'alice', 'secret'),
  ]
  for (const answer of await Promise.all(guesses)) assert.match(answer, /^a NO/m)
})

test('port 25 takes mail for our users, and relays for nobody', async ({ plan }) => {
  const talk = Talk.plain(plan.ports.smtp)
  assert.match(await talk.hear(/\r\n/), /^220 mail\.example\.org/)
  const features = await talk.say('EHLO client.test', /^250 /m)
  for (const feature of ['STARTTLS', 'SIZE 52428800', '8BITMIME', 'PIPELINING', 'SMTPUTF8'])
    assert.match(features, new RegExp(feature))
  await talk.say('MAIL FROM:<s@remote.test>', /^250/m)
  assert.match(await talk.say('RCPT TO:<x@elsewhere.test>', /^\d/m), /^554 5\.7\.1/)
  assert.match(await talk.say('RCPT TO:<x%elsewhere.test@example.org>', /^\d/m), /^451 4\.3\.0/)
  assert.match(await talk.say('RCPT TO:<nobody@example.org>', /^\d/m), /^451 4\.3\.0/)
  assert.match(await talk.say('RCPT TO:<Alice@EXAMPLE.org>', /^\d/m), /^250/)
  talk.close()
})

test('a recipient who may not be served is asked to wait', async ({ plan, stand }) => {
  stand.admissions.set('late', 'unavailable')
  const talk = Talk.plain(plan.ports.smtp)
  await talk.hear(/^220/)
  await talk.say('EHLO client.test', /^250 /m)
  await talk.say('MAIL FROM:<s@remote.test>', /^250/m)
  assert.match(await talk.say('RCPT TO:<late@example.org>', /^\d/m), /^451 4\.3\.0/)
  stand.admissions.set('late', 'ready')
  talk.close()
})

test('submission takes the right password only, and never in the clear', async ({
  plan,
  stand,
}) => {
  const { submission, submissions } = plan.ports
  const envelope = { from: 'alice@example.org', to: ['team@example.org'] }
  const send = (port: number, pass: string, more = {}) =>
    mailer(port, { auth: { user: 'Alice@example.org', pass }, ...more }).sendMail({
      envelope,
      raw: message('submitted'),
    })
  await send(submission, 'secret')
  await send(submissions, 'secret', { secure: true })
  const fails = async (attempt: Promise<unknown>): Promise<string> =>
    await attempt.then(
      () => 'accepted',
      (error: Error) => error.message,
    )
  assert.match(await fails(send(submission, 'wrong')), /535 5\.7\.8/)
  assert.match(await fails(send(submission, 'secret', { ignoreTLS: true })), /538|530/)
  const nobody = mailer(submission).sendMail({ envelope, raw: message('submitted') })
  assert.match(await fails(nobody), /530/)
  stand.admissions.set('alice', 'unavailable')
  assert.match(await fails(send(submission, 'secret')), /454 4\.7\.0/)
  stand.admissions.set('alice', 'ready')
  await stand.drained()
  for (const user of ['alice', 'bob']) assert.is((await stand.subjects(user)).get('submitted'), 2)
})

test('submitted mail to other domains waits for production', async ({ plan, stand }) => {
  const { envelope } = await mailer(plan.ports.submission, {
    auth: { user: 'bob', pass: 'hunter2' },
  }).sendMail({
    envelope: { from: 'bob@example.org', to: ['friend@elsewhere.test', 'alice@example.org'] },
    raw: message('to two worlds'),
  })
  assert.is(envelope.to.length, 2)
  const end = performance.now() + DEADLINE_MS
  while (!(await stand.subjects('alice')).has('to two worlds'))
    assert.ok(performance.now() < end, 'the local recipient gets it at once')
  assert.is(stand.front.queued, 1)
})

/** Has the stand believe that production's submission and SMTP are at these ports, while `work` lasts. */
async function withProduction(
  stand: Stand,
  ports: { readonly smtp: number; readonly submission: number },
  work: () => Promise<void>,
): Promise<void> {
  const services = stand.settings.production.services as { protocol: string; port: number }[]
  const original = services.map(({ port }) => port)
  try {
    for (const service of services)
      if (service.protocol === 'smtp' || service.protocol === 'submission')
        service.port = ports[service.protocol]
    await stand.front.pause()
    await work()
  } finally {
    stand.front.resume()
    for (const [index, service] of services.entries()) service.port = original[index] ?? 0
  }
}

test('what waited is submitted to production on behalf of its user', async ({ stand }) => {
  const ports = await freePorts()
  const got: string[] = []
  const production = new SMTPServer({
    logger: false,
    onAuth: ({ authcid, authzid, password }, _, done) => {
      got.push(`${authcid} ${password} for ${authzid}`)
      done(null, { user: authzid })
    },
    onData: (stream, { envelope }, done) => {
      got.push(`to ${envelope.rcptTo.map(({ address }) => address).join()}`)
      stream.resume().once('end', () => done())
    },
  })
  production.on('error', () => {})
  await new Promise<void>((resolve) => production.listen(ports.submission, '127.0.0.1', resolve))
  try {
    await withProduction(stand, ports, async () => {
      assert.is(await stand.front.flushToProduction(), 0)
    })
    assert.equal(got, ['admin the admin for bob', 'to friend@elsewhere.test'])
  } finally {
    await new Promise<void>((resolve) => production.close(resolve))
  }
})

test('when production is not there yet, everything is kept', async ({ plan, stand }) => {
  await mailer(plan.ports.submission, { auth: { user: 'bob', pass: 'hunter2' } }).sendMail({
    envelope: { from: 'bob@example.org', to: ['friend@elsewhere.test'] },
    raw: message('kept'),
  })
  await withProduction(stand, await freePorts(), async () => {
    assert.is(await stand.front.flushToProduction(), 1)
  })
})

test('when production refuses for good, the sender is told', async ({ directory, stand }) => {
  const ports = await freePorts()
  const production = await Stand.start({ directory: join(directory, 'p'), ports })
  try {
    // It does not know the administrator's login, and on port 25 it relays for nobody.
    production.front.resume()
    await withProduction(stand, ports, async () => {
      await stand.front.flushToProduction()
    })
    await stand.drained()
    const subjects = await stand.subjects('bob')
    assert.is(subjects.get('Undelivered Mail Returned to Sender'), 1)
  } finally {
    await production.stop()
  }
})

test('the whole message arrives as it was sent, behind its trace header', async ({
  plan,
  stand,
}) => {
  const body = `${'.leading dot\r\n..two\r\n.\u00e9\r\n'.repeat(500)}`
  await mailer(plan.ports.smtp).sendMail({
    envelope: { from: 's@remote.test', to: ['alice@example.org'] },
    raw: Buffer.from(`Subject: as sent\r\n\r\n${body}`),
  })
  await stand.drained()
  const talk = Talk.tls(plan.ports.imaps)
  await talk.hear(/\* OK/)
  await talk.say('a LOGIN alice secret', /^a OK/m)
  await talk.say('b SELECT INBOX', /^b OK/m)
  const found = await talk.say('c SEARCH SUBJECT "as sent"', /^c OK/m)
  const [, number] = /\* SEARCH (\d+)/.exec(found) ?? []
  const got = await talk.say(`d FETCH ${number} BODY.PEEK[]`, /^d OK/m)
  assert.ok(got.includes(Buffer.from(body).toString('latin1')), 'octet for octet')
  assert.match(
    got,
    /Received: from \S+ \(\[127\.0\.0\.1\]\)\r\n\tby mail\.example\.org with ESMTPS id \w+/,
  )
  talk.close()
})

test('a message over the limit is refused with 552', async ({ directory }) => {
  const ports = await freePorts()
  const serving = { messageBytesMax: 20_000 }
  const small = await Stand.start({ directory: join(directory, 's'), ports, serving })
  try {
    small.front.resume()
    const talk = Talk.plain(ports.smtp)
    await talk.hear(/^220/)
    await talk.say('EHLO client.test', /^250 /m)
    await talk.say('MAIL FROM:<s@remote.test>', /^250/m)
    await talk.say('RCPT TO:<alice@example.org>', /^250/m)
    await talk.say('DATA', /^354/m)
    assert.match(await talk.say(`${message('big', 2000)}.`, /^\d{3} /m), /^552 5\.3\.4/)
    assert.match(await talk.say('NOOP', /^\d{3} /m), /^250/)
    talk.close()
    assert.is(small.front.queued, 0)
    assert.equal(await readdir(small.paths.queue), [])
  } finally {
    await small.stop()
  }
})

test('300 messages over 8 connections are all accepted and all delivered once', async ({
  plan,
  stand,
}) => {
  const pool = { pool: true, maxConnections: 8, maxMessages: 1_000 } as const
  const transport = mailer(plan.ports.smtp, pool)
  const names = Array.from({ length: 300 }, (_, n) => `burst ${n}`)
  await Promise.all(
    names.map((name, n) =>
      transport.sendMail({
        envelope: {
          from: 's@remote.test',
          to: [n % 2 === 0 ? 'alice@example.org' : 'bob@example.org'],
        },
        raw: message(name, 100),
      }),
    ),
  )
  transport.close()
  await stand.drained()
  const [alice, bob] = [await stand.subjects('alice'), await stand.subjects('bob')]
  for (const [n, name] of names.entries()) assert.is((n % 2 === 0 ? alice : bob).get(name), 1, name)
})

test('while paused nothing is acknowledged; what waits is, after resume', async ({
  plan,
  stand,
}) => {
  await stand.front.pause()
  const sending = mailer(plan.ports.smtp).sendMail({
    envelope: { from: 's@remote.test', to: ['alice@example.org'] },
    raw: message('behind the barrier'),
  })
  let acknowledged = false
  sending.then(
    () => {
      acknowledged = true
    },
    () => {},
  )
  const end = performance.now() + DEADLINE_MS
  while ((await readdir(stand.paths.queue)).length === 0) assert.ok(performance.now() < end)
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.is(acknowledged, false)
  assert.is(stand.front.queued, 0)
  stand.front.resume()
  await sending
  await stand.drained()
  assert.is((await stand.subjects('alice')).get('behind the barrier'), 1)
})

test('a full disk is a temporary refusal, and nothing is lost or left', async ({ directory }) => {
  const own = join(directory, 'f')
  const queue = join(own, 'state', 'queue')
  await mkdir(queue, { recursive: true })
  await exec('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', queue])
  const ports = await freePorts()
  let full: Stand | undefined
  try {
    full = await Stand.start({ directory: own, ports, reserveBytes: 0 })
    const { front, admissions } = full
    front.resume()
    const send = (subject: string, lines: number) =>
      mailer(ports.smtp).sendMail({
        envelope: { from: 's@remote.test', to: ['alice@example.org'] },
        raw: message(subject, lines),
      })
    const refusal = await send('too much for the disk', 30_000).then(
      () => 'accepted',
      (error: Error) => error.message,
    )
    assert.match(refusal, /452 4\.3\.1/)
    assert.equal(await readdir(queue), [])
    await send('fits', 100)
    admissions.set('alice', 'ready')
    await full.drained()
    assert.equal([...(await full.subjects('alice'))], [['fits', 1]])
  } finally {
    await full?.stop()
    await exec('umount', [queue])
  }
})

test('a message that was delivered just before a crash is not delivered again', async ({
  directory,
}) => {
  const plan = { directory: join(directory, 'c'), ports: await freePorts() }
  const first = await Stand.start(plan)
  const { queue } = first.paths
  const copies = join(directory, 'copies')
  await mkdir(copies)
  try {
    // Accepted, and copied before its delivery: putting the copy back is the crash before unlink(2).
    first.admissions.set('bob', 'ready')
    first.front.resume()
    const held = first.front
    await mailer(plan.ports.smtp).sendMail({
      envelope: { from: 's@remote.test', to: ['alice@example.org', 'bob@example.org'] },
      raw: message('once only'),
    })
    const names = await readdir(queue)
    for (const name of names.filter((one) => !one.includes('.')))
      await copyFile(join(queue, name), join(copies, name)).catch(() => {})
    await first.drained()
    assert.is(held.queued, 0)
  } finally {
    await first.stop()
  }
  const names = await readdir(copies)
  for (const name of names) await copyFile(join(copies, name), join(queue, name))
  const second = await Stand.start(plan)
  try {
    second.front.resume()
    await second.drained()
    for (const user of ['alice', 'bob'])
      assert.is((await second.subjects(user)).get('once only'), 1)
    const found = second.events.filter(({ event }) => event === 'delivery.found')
    assert.is(found.length, 2 * names.length)
  } finally {
    await second.stop()
  }
})

/** Sends until the server is gone; answers the subjects that were acknowledged, and those that may have been. */
async function sendUntilKilled(port: number, round: number): Promise<[string[], string[]]> {
  const transport = mailer(port, { pool: true, maxConnections: 8, maxMessages: 1_000 })
  const acknowledged: string[] = []
  const unsure: string[] = []
  await Promise.all(
    Array.from({ length: 120 }, async (_, n) => {
      const subject = `round ${round} message ${n}`
      await transport
        .sendMail({
          envelope: { from: 's@remote.test', to: ['alice@example.org'] },
          raw: message(subject),
        })
        .then(
          () => acknowledged.push(subject),
          () => unsure.push(subject),
        )
    }),
  )
  transport.close()
  return [acknowledged, unsure]
}

test('after SIGKILL of everything, each acknowledged message is there exactly once', async ({
  directory,
}) => {
  const plan = { directory: join(directory, 'k'), ports: await freePorts() }
  const acknowledged: string[] = []
  const stand = new URL('./serving-stand.ts', import.meta.url).pathname
  for (const [round, killAfterMs] of [300, 700].entries()) {
    const child = spawn(
      process.execPath,
      ['--import', 'tsx', stand, 'serve', JSON.stringify(plan)],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const gone = new Promise((resolve) => child.once('exit', resolve))
    await new Promise((resolve) => createInterface({ input: child.stdout }).once('line', resolve))
    setTimeout(() => child.kill('SIGKILL'), killAfterMs)
    const [sure] = await sendUntilKilled(plan.ports.smtp, round)
    acknowledged.push(...sure)
    child.kill('SIGKILL')
    await gone
  }
  assert.ok(acknowledged.length > 0, 'something was acknowledged')
  const after = await Stand.start(plan)
  try {
    after.front.resume()
    await after.drained()
    const subjects = await after.subjects('alice')
    for (const subject of acknowledged) assert.is(subjects.get(subject), 1, subject)
    for (const [subject, copies] of subjects) assert.is(copies, 1, `${subject}: not twice`)
  } finally {
    await after.stop()
  }
})

test('a Dovecot that was killed is started again; its rest does not hinder', async ({
  plan,
  stand,
}) => {
  const abort = new AbortController()
  const running = stand.service.run(abort.signal)
  try {
    const open = Talk.tls(plan.ports.imaps)
    await open.hear(/\* OK/)
    await open.say('a LOGIN alice secret', /^a OK/m)
    const killed = stand.service.pid ?? 0
    process.kill(killed, 'SIGKILL')
    const end = performance.now() + DEADLINE_MS
    while (stand.service.pid === killed || stand.service.pid === undefined) {
      assert.ok(performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    let answer = ''
    while (!/^a OK/m.test(answer)) {
      assert.ok(performance.now() < end)
      answer = await imapLogin(Talk.tls(plan.ports.imaps), 'alice', 'secret').catch(() => '')
    }
    open.close()
  } finally {
    abort.abort()
    await running
    await stand.service.start()
  }
})

test.run()
