import type { Readable } from 'node:stream'

/** No peer of ours has longer lines; one that had would be wrong, or mean harm. */
const LINE_CHARACTERS_MAX = 65_536

/** Calls `on` with each complete line of a stream. A line that does not end ends the stream. */
export function eachLine(stream: Readable, on: (line: string) => void): void {
  let rest = ''
  stream.setEncoding('utf8').on('data', (chunk: string) => {
    const lines = `${rest}${chunk}`.split('\n')
    rest = lines.pop() ?? ''
    if (rest.length > LINE_CHARACTERS_MAX) stream.destroy()
    for (const line of lines) on(line)
  })
}
