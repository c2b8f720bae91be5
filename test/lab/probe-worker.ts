// Asks one port once, from inside a namespace, and says what it heard.
import { ConnectionLost, LineSocket } from './clients/line-socket.ts'
import { workerInput } from './worker-input.ts'

const { host, port, patienceMs } = await workerInput<{
  host: string
  port: number
  patienceMs: number
}>()

async function heard(): Promise<string> {
  const line = await LineSocket.open({ host, port }, patienceMs)
  try {
    return await line.readLine(patienceMs)
  } finally {
    line.close()
  }
}

const answer = await heard().catch((error: unknown) => {
  if (error instanceof ConnectionLost) return error.because
  throw error
})
process.stdout.write(JSON.stringify(answer))
