import * as v from 'valibot'
import type { Answer } from './protocol.ts'
import type { Status } from './status.ts'

/** What became of an order: it is being carried out, or why not, in words. */
export type OrderResult =
  | { readonly accepted: true }
  | { readonly accepted: false; readonly because: string }

/** What people may ask of the agent, by whatever face. An order is answered when it is accepted, not when it is done. */
export type Orders = {
  status(): Status
  takeOver(reason: string): Promise<OrderResult>
  giveBack(reason: string): Promise<OrderResult>
  /** Reads the settings again. */
  reload(): Promise<OrderResult>
  /** Compares one account, or all, with production from scratch. */
  resync(user?: string): Promise<OrderResult>
}

/** One thing that can be asked for: the same name, help, arguments and effect at every face. */
export type Verb = {
  readonly name: string
  readonly help: string
  /** Names of the arguments, and whether they are given by being there (`flag`) or with a text. */
  readonly takes: Readonly<Record<string, 'flag' | 'text'>>
  /** Checks the arguments, then asks. */
  perform(orders: Orders, args: unknown): Promise<Answer>
}

const text = v.optional(v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(200)))
const flag = v.optional(v.boolean(), false)

type Arguments = v.StrictObjectSchema<Record<string, typeof text | typeof flag>, undefined>

function verb<const A extends Arguments>(
  name: string,
  help: string,
  accepts: A,
  ask: (orders: Orders, given: v.InferOutput<A>) => Answer | Promise<Answer>,
): Verb {
  return {
    name,
    help,
    takes: Object.fromEntries(
      Object.entries(accepts.entries).map(([key, { wrapped }]) => [
        key,
        wrapped.type === 'boolean' ? 'flag' : 'text',
      ]),
    ),
    perform: async (orders, args) => {
      const parsed = v.safeParse(accepts, args)
      if (parsed.success) return await ask(orders, parsed.output)
      const [first] = parsed.issues
      return {
        accepted: false,
        because: `argument ${v.getDotPath(first) ?? 'list'}: ${first.message}`,
      }
    },
  }
}

const nothing = v.strictObject({})

const isAnswering = ({ production, services }: Status): boolean =>
  production.reachable && services.every(({ verdict }) => verdict !== 'failed')

/** Everything that can be asked of a running agent. */
export const verbs: readonly Verb[] = [
  verb('status', 'what the appliance does, and what needs a person', nothing, (orders) => ({
    accepted: true,
    status: orders.status(),
  })),
  verb(
    'take-over',
    'answer in place of production; while production still answers, only with confirm',
    v.strictObject({ confirm: flag, reason: text }),
    (orders, { confirm, reason = 'an order' }) =>
      isAnswering(orders.status()) && !confirm
        ? {
            accepted: false,
            because: 'production is answering; say confirm to take over all the same',
          }
        : orders.takeOver(reason),
  ),
  verb(
    'give-back',
    'hand everything back to production, which has been seen to answer',
    v.strictObject({ reason: text }),
    (orders, { reason = 'an order' }) => orders.giveBack(reason),
  ),
  verb('reload', 'read the settings again', nothing, (orders) => orders.reload()),
  verb(
    'resync',
    'compare one account, or all, with production from scratch',
    v.strictObject({ user: text }),
    (orders, { user }) => orders.resync(user),
  ),
]

/** @returns `undefined` for a name that is not in the table. */
export const verbNamed = (name: string): Verb | undefined =>
  verbs.find((candidate) => candidate.name === name)
