// graphile-worker under the load of benches/tasks_postgres: node graphile.mjs TASKS AT_ONCE BATCH, with DATABASE_URL.
// A batch above 1 is its local queue, with completions in batches, too. Prints how many tasks, and the seconds of
// enqueuing, of working off, and of both at once.
import { createRequire } from "node:module";
import { EventEmitter } from "node:events";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.env.FULMAR_PEERS + "/"));
const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { Pool } = require("pg");

const [tasks, atOnce, batch] = process.argv.slice(2).map(Number);
const schema = `graphile_bench_${process.pid}_${Date.now()}`;
const pgPool = new Pool({ connectionString: process.env.DATABASE_URL, max: atOnce + 2 });
pgPool.on("error", (error) => { throw error; });
pgPool.on("connect", (client) => client.on("error", (error) => { throw error; }));
const logger = new Logger(() => () => {});
const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;

const utils = await makeWorkerUtils({ pgPool, schema, logger });
await utils.migrate();
const share = Math.floor(tasks / atOnce);
const enqueue = () => Promise.all(
  Array.from({ length: atOnce }, async () => {
    for (let first = 0; first < share; first += batch) {
      const count = Math.min(batch, share - first);
      if (batch === 1) await utils.addJob("noop", null);
      else await utils.addJobs(Array.from({ length: count }, () => ({ identifier: "noop", payload: null })));
    }
  }),
);
let start = process.hrtime.bigint();
await enqueue();
const enqueued = seconds(start);

let left;
let ended;
const expect = () => { left = share * atOnce; return new Promise((resolve) => (ended = resolve)); };
const events = new EventEmitter();
events.on("job:complete", () => { if (--left === 0) ended(); });
const worker = { schema, concurrentJobs: atOnce, logger };
if (batch > 1) Object.assign(worker, { localQueue: { size: batch }, completeJobBatchDelay: 0, failJobBatchDelay: 0 });
const options = { pgPool, noHandleSignals: true, preset: { worker }, events, taskList: { noop: () => {} } };
// The last completions may still be on their way.
async function settled() {
  for (let looks = 0; ; looks++) {
    const { rows } = await pgPool.query(`SELECT count(*)::int AS left FROM ${schema}._private_jobs`);
    if (rows[0].left === 0) return;
    if (looks > 10_000) throw new Error(`${rows[0].left} jobs are left`);
  }
}
async function timed(alongside) {
  const all = expect();
  const start = process.hrtime.bigint();
  const runner = await run(options);
  await alongside();
  await all;
  await runner.stop();
  await settled();
  return seconds(start);
}
const worked = await timed(() => {});
const through = await timed(enqueue);
await pgPool.query(`DROP SCHEMA ${schema} CASCADE`);
await utils.release();
await pgPool.end();
console.log(share * atOnce, enqueued, worked, through);
