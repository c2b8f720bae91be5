import * as v from 'valibot'

/** What is loaded, in the words of ruleset.ts. */
export type TableFacts = {
  /** `chain: comment` of every rule, in the kernel's order within each chain. */
  readonly rules: readonly string[]
  readonly chains: readonly string[]
  /** Elements by the name of their set, written as nft(8) reads them. */
  readonly elements: ReadonlyMap<string, readonly string[]>
}

const atom = v.union([v.string(), v.number()])
const key = v.union([atom, v.object({ concat: v.array(atom) })])
const element = v.union([key, v.object({ elem: v.object({ val: key }) })])
const item = v.object({
  chain: v.optional(v.object({ name: v.string() })),
  rule: v.optional(v.object({ chain: v.string(), comment: v.optional(v.string(), '') })),
  set: v.optional(v.object({ name: v.string(), elem: v.optional(v.array(element), []) })),
})
const document = v.pipe(v.string(), v.parseJson(), v.object({ nftables: v.array(item) }))

const keyText = (value: v.InferOutput<typeof key>): string =>
  typeof value === 'object' ? value.concat.join(' . ') : String(value)

const elementText = (value: v.InferOutput<typeof element>): string =>
  typeof value === 'object' && 'elem' in value ? keyText(value.elem.val) : keyText(value)

/** Reads `nft -j list table`. @throws {v.ValiError} when it is not what nft 1.0 prints. */
export function parseTable(json: string): TableFacts {
  const { nftables } = v.parse(document, json)
  return {
    rules: nftables.flatMap(({ rule }) => (rule ? [`${rule.chain}: ${rule.comment}`] : [])),
    chains: nftables.flatMap(({ chain }) => (chain ? [chain.name] : [])),
    elements: new Map(
      nftables.flatMap(({ set }) => (set ? [[set.name, set.elem.map(elementText)] as const] : [])),
    ),
  }
}

/** What should be loaded. */
export type Expected = {
  readonly rules: readonly string[]
  /** The chain that names the plan. */
  readonly fingerprint: string
  readonly elements: ReadonlyMap<string, readonly string[]>
  /** Sets that may hold more than was asked for, because the packet path adds to them. */
  readonly open: (set: string) => boolean
}

/** Each difference in one line; none means that the kernel does what it should. */
export function differences(expected: Expected, actual: TableFacts | undefined): readonly string[] {
  if (actual === undefined) return ['the table is missing']
  if (!actual.chains.includes(expected.fingerprint)) return ['the table was made from another plan']
  return [
    ...ruleDifferences(expected.rules, actual.rules),
    ...[...expected.elements].flatMap(([set, wanted]) => {
      const found = new Set(actual.elements.get(set) ?? [])
      const missing = wanted.filter((one) => !found.has(one))
      const extra = expected.open(set) ? [] : [...found].filter((one) => !wanted.includes(one))
      return [
        ...missing.map((one) => `${set} lacks ${one}`),
        ...extra.map((one) => `${set} has ${one}`),
      ]
    }),
  ]
}

function ruleDifferences(wanted: readonly string[], found: readonly string[]): readonly string[] {
  const chainOf = (rule: string) => rule.slice(0, rule.indexOf(':'))
  const chains = new Set([...wanted, ...found].map(chainOf))
  return [...chains].flatMap((chain) => {
    const of = (rules: readonly string[]) => rules.filter((rule) => chainOf(rule) === chain)
    return of(wanted).join('\n') === of(found).join('\n')
      ? []
      : [`the rules of chain ${chain} were changed`]
  })
}
