import * as v from 'valibot'
import { statusSchema } from './status.ts'

/** Raised when a request or an answer changes so that the other side could misread it. */
export const PROTOCOL_VERSION = 1

const request = v.object({
  version: v.literal(PROTOCOL_VERSION),
  verb: v.string(),
  arguments: v.optional(v.unknown(), {}),
})

const answer = v.variant('accepted', [
  v.object({ accepted: v.literal(true), status: v.optional(statusSchema) }),
  v.object({ accepted: v.literal(false), because: v.string() }),
])

/** What is asked of a running agent. */
export type Request = v.InferOutput<typeof request>

/** The answer to a request: whether it is being carried out, and for `status` the status with it. */
export type Answer = v.InferOutput<typeof answer>

/** Reads a line from a caller, who may be anybody's program. */
export function requestIn(line: string): Request | { readonly because: string } {
  const json = v.safeParse(v.pipe(v.string(), v.parseJson()), line)
  if (!json.success) return { because: 'not a JSON object on one line' }
  const parsed = v.safeParse(request, json.output)
  if (parsed.success) return parsed.output
  const [first] = parsed.issues
  const where = v.getDotPath(first) ?? 'request'
  return where === 'version'
    ? { because: `this agent speaks version ${PROTOCOL_VERSION}; use the command of its release` }
    : { because: `${where}: ${first.message}` }
}

/** Reads a line from the agent. @returns `undefined` for what this program does not understand. */
export function answerIn(line: string): Answer | undefined {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), answer), line)
  return parsed.success ? parsed.output : undefined
}
