// Sends a byte, waits for its echo, again and again; prints the median time in microseconds. The plan is its argument.
import { createConnection } from 'node:net'
import { monotonicMs } from '../clock.ts'
import { median } from '../rows.ts'

const { host, port, from, times } = JSON.parse(process.argv[2] ?? '') as {
  host: string
  port: number
  from: string
  times: number
}
const WARMING = 200

const tookUs: number[] = []
const socket = createConnection({ host, port, localAddress: from, noDelay: true })
let sentMs = 0
const send = () => {
  sentMs = monotonicMs()
  socket.write('.')
}
socket.once('connect', send)
socket.on('data', () => {
  tookUs.push((monotonicMs() - sentMs) * 1_000)
  if (tookUs.length < times + WARMING) return send()
  process.stdout.write(median(tookUs.slice(WARMING)).toFixed(1))
  socket.destroy()
})
