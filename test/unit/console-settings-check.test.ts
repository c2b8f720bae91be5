// Goal: what would fail on the day of a failover is found when the settings are written.
// Method: sound settings over a world of files that has one thing wrong.
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { settingsFrom } from '../../agent/config.ts'
import { checkSettings, type Readers, reportOf } from '../../agent/console/settings-check.ts'
import { leastSettings } from '../fakes/settings.ts'

type Files = Readonly<Record<string, { readonly text: string; readonly mode?: number }>>

const files: Files = {
  '/etc/understudy/admin.password': { text: 'secret\n' },
  '/etc/understudy/mail.crt': { text: 'certificate', mode: 0o644 },
  '/etc/understudy/mail.key': { text: 'key' },
  '/etc/understudy/passwd': { text: 'zoe,adam' },
}

const readers = (world: Files): Readers => {
  const at = (path: string) => {
    const file = world[path]
    if (file !== undefined) return Promise.resolve(file)
    return Promise.reject(Object.assign(new Error('gone'), { code: 'ENOENT' }))
  }
  return {
    readText: async (path) => (await at(path)).text,
    modeOf: async (path) => (await at(path)).mode ?? 0o100600,
    checkCertificate: ({ certificatePem, hostname }) =>
      certificatePem === 'certificate'
        ? []
        : [{ what: `is not for ${hostname}`, where: 'tls', todo: 'Look', severity: 'warning' }],
    usersIn: (text) => {
      if (text === 'garbled') throw new Error('line 3: not a user name')
      return text.split(',').filter(Boolean)
    },
    now: new Date(0),
  }
}

type Settings = Record<string, unknown> & ReturnType<typeof leastSettings>

const linesFor = async (world: Files, spoil: (settings: Settings) => void = () => {}) => {
  const settings: Settings = leastSettings()
  spoil(settings)
  return reportOf(await checkSettings(settingsFrom(settings, 'settings'), readers(world)))
}

const test = suite('check of settings')

test('sound settings have no findings', async () => {
  assert.equal(await linesFor(files), { usable: true, lines: [] })
})

test('a file that is not there is named with its setting', async () => {
  const { '/etc/understudy/passwd': _, ...rest } = files
  assert.equal(await linesFor(rest), {
    usable: false,
    lines: [
      'accounts.passwdFile (/etc/understudy/passwd): the file is not there. Put the file there or correct the path.',
    ],
  })
})

test('a secret that everybody may read is a problem; a certificate is no secret', async () => {
  const world = { ...files, '/etc/understudy/mail.key': { text: 'key', mode: 0o100644 } }
  assert.equal(await linesFor(world), {
    usable: false,
    lines: [
      'production.tls.keyFile (/etc/understudy/mail.key): everybody on this machine may read a secret. Run: chmod o= /etc/understudy/mail.key.',
    ],
  })
})

test('a warning does not make settings unusable', async () => {
  const world = { ...files, '/etc/understudy/mail.crt': { text: 'other' } }
  assert.equal(await linesFor(world), {
    usable: true,
    lines: ['warning: tls: is not for mail.example.org. Look.'],
  })
})

test('the list of accounts must be readable as such, and not empty', async () => {
  const withList = (text: string) => linesFor({ ...files, '/etc/understudy/passwd': { text } })
  assert.match(
    String((await withList('garbled')).lines[0]),
    /: line 3: not a user name\. Correct the line/,
  )
  assert.match(String((await withList('')).lines[0]), /no account is protected/)
})

test('an empty password is found', async () => {
  const world = { ...files, '/etc/understudy/admin.password': { text: '\n' } }
  assert.match(
    String((await linesFor(world)).lines[0]),
    /the password is empty\. Write the password of admin/,
  )
})

const contradictions: readonly (readonly [
  what: string,
  spoil: (settings: Settings) => void,
  line: RegExp,
])[] = [
  [
    'an alias to somebody who is not protected',
    (settings) =>
      Object.assign(settings.accounts, { aliases: { 'info@example.org': ['eve', 'Zoe'] } }),
    /^accounts\.aliases\.info@example\.org: the alias leads to eve, who/,
  ],
  [
    'one port twice',
    ({ production }) => production.services.push({ port: 25, protocol: 'submission', tls: 'none' }),
    /^production\.services\.2: port 25 is there twice/,
  ],
  [
    "production's address as our own",
    ({ wire }) => Object.assign(wire.management, { ipv4: { address: '10.77.0.10', prefix: 24 } }),
    /^wire\.management: 10\.77\.0\.10 is production's address/,
  ],
  [
    "production's MAC address as our own",
    ({ production }) => Object.assign(production, { mac: '02:00:00:77:00:02' }),
    /^wire\.management\.mac: 02:00:00:77:00:02 is production's/,
  ],
  [
    'both networks on one interface',
    ({ wire }) => Object.assign(wire, { users: 'eth1' }),
    /^wire\.production: users and production are on one interface, eth1/,
  ],
  [
    'a certificate for the operations centre without its key',
    (settings) =>
      Object.assign(settings, {
        noc: { url: 'mqtts://noc', id: 'a', certificateFile: '/etc/understudy/mail.crt' },
      }),
    /^noc: a certificate and its key go together/,
  ],
]

for (const [what, spoil, line] of contradictions)
  test(`${what} is found`, async () => {
    const { usable, lines } = await linesFor(files, spoil)
    assert.not(usable)
    assert.is(lines.length, 1)
    assert.match(String(lines[0]), line)
  })

test('telemetry in the clear is a warning', async () => {
  const { usable, lines } = await linesFor(files, (settings) => {
    settings['noc'] = { url: 'mqtt://noc', id: 'a' }
  })
  assert.ok(usable)
  assert.match(String(lines[0]), /^warning: noc\.url: telemetry would travel unencrypted/)
})

test.run()
