// Goal: the tree keeps its own promises: no dead file, no silent test, no stale document, one word for one thing.
// Method: it reads the tree as text.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { stateDiagram } from '../../agent/continuity/diagram.ts'

const root = join(import.meta.dirname, '../..')
const NOT_OURS = new Set(['node_modules', '.git', 'build'])

function filesUnder(folder: string): readonly string[] {
  return readdirSync(join(root, folder), { withFileTypes: true })
    .filter(({ name }) => !NOT_OURS.has(name))
    .flatMap((entry) => {
      const path = join(folder, entry.name)
      return entry.isDirectory() ? filesUnder(path) : entry.isFile() ? [path] : []
    })
}

const textOf = (path: string): string => readFileSync(join(root, path), 'utf8')
const all = filesUnder('.')
const code = all.filter((path) => /^(agent|firmware|supervisor)\/.*\.ts$/.test(path))

/** Files that an import, a dynamic one too, or a `new URL('./x.ts', import.meta.url)` names. */
const namedIn = (path: string): readonly string[] =>
  [...textOf(path).matchAll(/(?:from|import|import\(|URL\() ?'(\.[^']+\.ts)'/g)].map(([, name]) =>
    join(dirname(path), name ?? ''),
  )

function reachableFrom(roots: readonly string[]): ReadonlySet<string> {
  const seen = new Set<string>()
  const waiting = [...roots]
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop())
    if (!seen.has(path) && existsSync(join(root, path))) {
      seen.add(path)
      waiting.push(...namedIn(path))
    }
  return seen
}

const test = suite('tidy')

test('every test file runs its tests', () => {
  const tests = all.filter((path) => /^test\/.*\.test\.ts$/.test(path))
  assert.ok(tests.length > 0)
  assert.equal(
    tests.filter((path) => !/\.run\(\)$/m.test(textOf(path))),
    [],
  )
})

test('every file of the program is reached from one of its processes', () => {
  const mains = ['agent/main.ts', 'agent/console/cli.ts', 'supervisor/main.ts']
  const processes = code.filter((path) => path.endsWith('-process.ts'))
  const alive = reachableFrom([...mains, ...processes])
  // The diagram is for ARCHITECTURE.md, which is checked below.
  const dead = code.filter((path) => !alive.has(path) && path !== 'agent/continuity/diagram.ts')
  assert.equal(dead, [])
})

test('links in documents lead somewhere', () => {
  const dead = all
    .filter((path) => path.endsWith('.md'))
    .flatMap((path) =>
      [...textOf(path).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)]
        .map(([, link]) => link ?? '')
        .filter((link) => !/^[a-z]+:/.test(link))
        .filter((link) => !existsSync(join(root, dirname(path), link)))
        .map((link) => `${path}: ${link}`),
    )
  assert.equal(dead, [])
})

const BANNED: readonly (readonly [word: RegExp, better: string])[] = [
  [/\bstand-?by\b/i, 'transparent wait'],
  [/\b(takeover|backup|recovery) mode\b/i, 'failover'],
  [/\bslave\b|\bmaster mode\b/i, 'appliance, production'],
  [/\b(W|L)AN (side|interface|port)\b/, 'first or second network'],
  [/\bstutter\s?sync\b|\bsync job\b/i, 'stutter-step pass'],
  [/\b(kick|feed)s? the watchdog\b/i, 'pet the watchdog'],
  [/\bpartition [AB]\b/, 'slot'],
]

test('one thing has one name (the glossary is in ARCHITECTURE.md)', () => {
  const found = code.flatMap((path) =>
    BANNED.flatMap(([word, better]) => {
      const [match] = word.exec(textOf(path)) ?? []
      return match === undefined ? [] : [`${path}: "${match}"; say ${better}`]
    }),
  )
  assert.equal(found, [])
})

test('no path of somebody’s machine stands in the tree', () => {
  const found = all
    .filter((path) => statSync(join(root, path)).size < 1_000_000 && path !== 'package-lock.json')
    .filter((path) => /(^|[^\w.~-])\/(work|home|Users|root)\//.test(textOf(path)))
  assert.equal(found, [])
})

test('the state diagram in ARCHITECTURE.md is the machine’s own', () => {
  assert.ok(textOf('ARCHITECTURE.md').includes(stateDiagram()), 'copy what stateDiagram() answers')
})

test.run()
