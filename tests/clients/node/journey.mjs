// The journey of a program written against OpenAI, with the official Node SDK: the same operations, under the
// same names and reduced in the same way as in tests/support/floopy_clients/journey.py.
// `node journey.mjs PACKAGE BASE_URL API_KEY WORK_DIR` prints the report as JSON.
import fs from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';

const ENDED = new Set(['completed', 'failed', 'expired', 'cancelled']);
const KEPT = new Set([
  'object', 'status', 'purpose', 'endpoint', 'completion_window', 'role', 'finish_reason', 'deleted', 'code', 'param',
  'line', 'status_code', 'mime_type', 'request_counts', 'metadata',
]);
const [sdk, baseURL, apiKey, work] = process.argv.slice(2);
const { default: OpenAI, APIError, toFile } = await import(sdk);
const manifest = new URL(`node_modules/${sdk}/package.json`, import.meta.url);
const { version } = JSON.parse(fs.readFileSync(manifest));
const client = new OpenAI({ baseURL, apiKey });
const stranger = new OpenAI({ baseURL, apiKey: 'sk-nobody' });
const operations = {};

function line(number) {
  const body = {
    model: 'gpt-4o-mini',
    messages: [{ role: 'user', content: `Say something about number ${number}` }],
  };
  if (number === 4) body.metadata = { sim: 'status=400' };
  return JSON.stringify({ custom_id: `line ${number} é`, method: 'POST', url: '/v1/chat/completions', body }) + '\n';
}

const lines = () => Buffer.from([1, 2, 3, 4, 5].map(line).join(''));

function shape(value, key = '') {
  if (key === 'floopy') return 'object';
  if (KEPT.has(key) || value === null) return value;
  if (Array.isArray(value)) return distinct(value.map((member) => shape(member)));
  if (typeof value === 'object') {
    const members = Object.entries(value).filter(([name]) => !name.startsWith('_'));
    return Object.fromEntries(members.map(([name, member]) => [name, shape(member, name)]));
  }
  return typeof value;
}

function distinct(shapes) {
  const texts = shapes.map((one) => JSON.stringify(one));
  return shapes.filter((_, at) => texts.indexOf(texts[at]) === at);
}

const keys = (value) => Object.keys(shape(value)).sort();
const onePage = (page) => ({ items: page.data.length, has_more: page.has_more, keys: keys(page.data[0]) });

function paging(seen, own) {
  const found = seen.filter((id) => own.includes(id));
  return {
    each_once: JSON.stringify([...found].sort()) === JSON.stringify([...own].sort()),
    newest_first: JSON.stringify(found) === JSON.stringify([...own].reverse()),
  };
}

async function every(pages) {
  const ids = [];
  for await (const item of pages) ids.push(item.id);
  return ids;
}

async function read(id) {
  return Buffer.from(await (await client.files.content(id)).arrayBuffer());
}

async function fails(name, call) {
  try {
    await call();
    operations[name] = 'no error';
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    operations[name] = {
      class: error.constructor.name,
      status: error.status,
      code: error.code ?? null,
      param: error.param ?? null,
      type: error.type ?? null,
      request_id: Boolean(error.requestID),
    };
  }
}

async function createFiles() {
  const content = lines();
  const local = path.join(work, 'requests.jsonl');
  fs.writeFileSync(local, content);
  const ways = {
    path: () => fs.createReadStream(local),
    bytes: () => toFile(content, 'requests.jsonl'),
    stream: () => toFile(Readable.from([content.subarray(0, 50), content.subarray(50)]), 'requests.jsonl'),
  };
  const created = {};
  for (const [way, file] of Object.entries(ways)) {
    created[way] = await client.files.create({ file: await file(), purpose: 'batch' });
    operations[`files.create from ${way}`] = shape(created[way]);
  }
  operations['answers carry a request id'] = Boolean(created.path._request_id);
  created.broken = await client.files.create({
    file: await toFile(Buffer.from('{"custom_id": "a"}\n{not json\n'), 'broken.jsonl'),
    purpose: 'batch',
    expires_after: { anchor: 'created_at', seconds: 3600 },
  });
  operations['files.create expires_after'] = created.broken.expires_at - created.broken.created_at;
  operations['files.wait_for_processing'] = shape(await client.files.waitForProcessing(created.path.id));
  operations['files.retrieve'] = shape(await client.files.retrieve(created.path.id));
  operations['files.content'] = content.equals(await read(created.path.id)) ? 'same bytes' : 'other bytes';
  return created;
}

function start(file, options = {}) {
  const asked = { input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' };
  return client.batches.create({ ...asked, ...options });
}

async function ended(batch) {
  for (let look = 0; look < 600; look += 1) {
    const found = await client.batches.retrieve(batch.id);
    if (ENDED.has(found.status)) return found;
    await pause(250);
  }
  throw new Error(`${batch.id} has not ended`);
}

async function batches(good, broken) {
  const started = await start(good, { metadata: { team: 'journey', price: '$5' } });
  operations['batches.create with metadata'] = shape(started);
  const bad = await start(broken);
  const finished = await ended(started);
  const failed = await ended(bad);
  operations['batches.retrieve until completed'] = shape(finished);
  operations['batches.retrieve until failed'] = shape(failed);
  return [finished, failed];
}

async function list(files, own) {
  operations['files.list one page'] = onePage(await client.files.list({ purpose: 'batch', limit: 2 }));
  const seen = await every(client.files.list({ purpose: 'batch', limit: 2 }));
  operations['files.list every page'] = paging(seen, Object.values(files).map((file) => file.id));
  operations['batches.list one page'] = onePage(await client.batches.list({ limit: 1 }));
  const all = await every(client.batches.list({ limit: 1 }));
  operations['batches.list every page'] = paging(all, own.map((batch) => batch.id));
}

async function results(batch) {
  for (const [name, id] of [['output', batch.output_file_id], ['error', batch.error_file_id]]) {
    operations[`files.retrieve the ${name} file`] = shape(await client.files.retrieve(id));
    const parsed = (await read(id)).toString().trimEnd().split('\n').map((text) => JSON.parse(text));
    operations[`files.content of the ${name} file`] = [...shape(parsed), parsed.length];
  }
}

async function cancel(file, finished) {
  const cancelling = await client.batches.cancel((await start(file)).id);
  operations['batches.cancel'] = { status: cancelling.status, keys: keys(cancelling) };
  const last = await ended(cancelling);
  operations['batches.retrieve until cancelled'] = last.status;
  operations['batches.cancel when cancelled'] = (await client.batches.cancel(last.id)).status;
  await fails('409 batches.cancel when completed', () => client.batches.cancel(finished.id));
}

async function errors(file) {
  const good = { input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' };
  const unknown = `batch_${'0'.repeat(32)}`;
  const png = () => toFile(Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 10]), 'a.png');
  const cases = {
    '401 files.list': () => stranger.files.list(),
    '401 batches.create': () => stranger.batches.create(good),
    '404 files.retrieve': () => client.files.retrieve('file-unknown'),
    '404 files.content': () => client.files.content('file-unknown'),
    '404 files.delete': () => client.files.delete('file-unknown'),
    '404 batches.retrieve': () => client.batches.retrieve(unknown),
    '404 batches.cancel': () => client.batches.cancel(unknown),
    '400 files.create no jsonl': async () => client.files.create({ file: await png(), purpose: 'batch' }),
    '400 files.create purpose': async () => client.files.create({ file: await png(), purpose: 'nonsense' }),
    '400 files.list limit': () => client.files.list({ limit: 0 }),
    '400 batches.list limit': () => client.batches.list({ limit: 101 }),
    '400 batches.list after': () => client.batches.list({ after: unknown }),
    '400 batches.create endpoint': () => client.batches.create({ ...good, endpoint: '/v1/nothing' }),
    '400 batches.create window': () => client.batches.create({ ...good, completion_window: '48h' }),
    '400 batches.create metadata': () => client.batches.create({ ...good, metadata: { tags: ['a'] } }),
    '400 batches.create no input': () => client.batches.create({ ...good, input_file_id: null }),
  };
  for (const [name, call] of Object.entries(cases)) await fails(name, call);
}

async function uploads() {
  const content = lines();
  const about = { filename: 'requests.jsonl', purpose: 'batch', mime_type: 'application/jsonl' };
  const upload = await client.uploads.create({ bytes: content.length, ...about });
  operations['uploads.create'] = shape(upload);
  const parts = [];
  for (const piece of [content.subarray(0, 100), content.subarray(100)]) {
    parts.push(await client.uploads.parts.create(upload.id, { data: await toFile(piece, 'part') }));
  }
  operations['uploads.parts.create'] = shape(parts[0]);
  const ids = parts.map((part) => part.id);
  await fails('400 uploads.complete', () => client.uploads.complete(upload.id, { part_ids: ids.slice(0, 1) }));
  const completed = await client.uploads.complete(upload.id, { part_ids: ids });
  operations['uploads.complete'] = shape(completed);
  const other = await client.uploads.create({ bytes: 1, ...about });
  operations['uploads.cancel'] = shape(await client.uploads.cancel(other.id));
  await fails('400 uploads.parts.create when cancelled', async () =>
    client.uploads.parts.create(other.id, { data: await toFile(Buffer.from('x'), 'part') }),
  );
  await fails('404 uploads.complete', () => client.uploads.complete('upload_unknown', { part_ids: ids }));
  operations['batches of an upload'] = shape(await ended(await start(completed.file)));
}

const files = await createFiles();
const [finished, failed] = await batches(files.bytes, files.broken);
await list(files, [finished, failed]);
await results(finished);
await cancel(files.bytes, finished);
await errors(files.bytes);
await uploads();
operations['files.delete'] = shape(await client.files.delete(files.path.id));
await fails('404 files.retrieve when deleted', () => client.files.retrieve(files.path.id));
const models = new Set();
for await (const model of client.models.list()) models.add(JSON.stringify(shape(model)));
operations['models.list'] = [...models].map((text) => JSON.parse(text));
process.stdout.write(JSON.stringify({ client: `Node ${version.split('.')[0]}.x`, operations }) + '\n');
