// Goal: what a durable file has answered for survives a torn write, a damaged copy and a full medium.
// Method: the files are damaged by hand between a write and a read; /dev/full is the full medium.
import { mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { DurableFile } from '../../firmware/durable-file.ts'

const test = suite<{ folder: string; path: string }>('durable file')

test.before.each(async (context) => {
  context.folder = await mkdtemp(join(tmpdir(), 'understudy-durable-'))
  context.path = join(context.folder, 'data')
})
test.after.each(({ folder }) => rm(folder, { recursive: true, force: true }))

test('nothing has been written yet', async ({ path }) => {
  assert.is(await new DurableFile(path).read(), null)
})

test('what was written is read, by another instance too', async ({ path }) => {
  const data = { name: 'Zoë', list: [1, 2, 3] }
  await new DurableFile(path).write(data)
  assert.equal(await new DurableFile(path).read(), data)
})

test('a torn write of the next copy leaves the newest', async ({ path }) => {
  const file = new DurableFile<number>(path)
  await file.write(1)
  await writeFile(`${path}.next`, 'a0b1c2')
  assert.is(await file.read(), 1)
  await file.write(2)
  assert.is(await file.read(), 2)
})

test('between the two renames the previous copy answers', async ({ path }) => {
  const file = new DurableFile<number>(path)
  await file.write(1)
  await writeFile(`${path}.previous`, await readFile(path))
  await rm(path)
  assert.is(await file.read(), 1)
})

test('a copy cut short at any byte is never believed', async ({ path }) => {
  const file = new DurableFile<string>(path)
  await file.write('first')
  await file.write('second')
  const { length } = await readFile(path)
  for (let size = length - 1; size >= 0; size -= 1) {
    await truncate(path, size)
    assert.is(await file.read(), 'first', `cut to ${size} bytes`)
  }
})

test('a flipped bit makes the previous copy answer, and is not kept as the previous one', async ({
  path,
}) => {
  const file = new DurableFile<string>(path)
  await file.write('first')
  await file.write('second')
  const bytes = await readFile(path)
  bytes[bytes.length - 2] = (bytes.at(-2) ?? 0) ^ 1
  await writeFile(path, bytes)
  assert.is(await file.read(), 'first')
  await file.write('third')
  await truncate(path, 3)
  assert.is(await file.read(), 'first')
})

test('two damaged copies are nothing, not an error', async ({ path }) => {
  await writeFile(path, 'garbage')
  await writeFile(`${path}.previous`, '')
  assert.is(await new DurableFile(path).read(), null)
})

test('a write that cannot begin is refused, and the old copy is still there', async ({ path }) => {
  const file = new DurableFile<number>(path)
  await file.write(1)
  await mkdir(`${path}.next`)
  assert.match(await refusal(file.write(2)), /EISDIR/)
  assert.is(await file.read(), 1)
})

test('a full medium refuses the write, and the old copy is still there', async ({ path }) => {
  const file = new DurableFile<number>(path)
  await file.write(1)
  await symlink('/dev/full', `${path}.next`)
  assert.match(await refusal(file.write(2)), /ENOSPC/)
  assert.is(await file.read(), 1)
})

test('a directory that is not there is an error that names it', async ({ folder }) => {
  const file = new DurableFile(join(folder, 'missing', 'data'))
  assert.match(await refusal(file.write(1)), /ENOENT.*missing/)
})

const refusal = (work: Promise<unknown>): Promise<string> => work.then(() => 'was accepted', String)

test.run()
