// plainjob on SQLite under the load of benches/tasks: node plainjob.mjs TASKS AT_ONCE BATCH, with DATABASE_URL, a file.
// Every commit waits for the disk: synchronous=FULL, where it sets NORMAL. All of it is one thread; its workers take tasks
// one by one, whatever the batch, which is one of enqueuing. Prints how many tasks, and the seconds of enqueuing, of working off, and of both at once.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.env.FULMAR_PEERS + "/"));
const Database = require("better-sqlite3");
const { better, defineQueue, defineWorker } = await import(
  pathToFileURL(`${process.env.FULMAR_PEERS}/node_modules/plainjob/dist/plainjob.js`)
);

const [tasks, atOnce, batch] = process.argv.slice(2).map(Number);
const logger = { debug() {}, info() {}, warn() {}, error: console.error };
const connection = better(new Database(process.env.DATABASE_URL));
const queue = defineQueue({ connection, logger });
connection.pragma("synchronous = FULL");
const share = Math.floor(tasks / atOnce);
const whole = share * atOnce;
const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;

async function enqueue() {
  for (let first = 0; first < whole; first += batch) {
    const count = Math.min(batch, whole - first);
    if (batch === 1) queue.add("noop", null);
    else queue.addMany("noop", Array(count).fill(null));
    // It never waits: its workers have their turn only if it does.
    await new Promise(setImmediate);
  }
}

let start = process.hrtime.bigint();
await enqueue();
const enqueued = seconds(start);
let left = whole;
let ended;
let all = new Promise((resolve) => (ended = resolve));
const onCompleted = () => { if (--left === 0) ended(); };
start = process.hrtime.bigint();
const workers = Array.from({ length: atOnce }, () =>
  defineWorker("noop", async () => {}, { queue, logger, pollIntervall: 1, onCompleted }),
);
workers.forEach((worker) => worker.start());
await all;
const worked = seconds(start);
left = whole;
all = new Promise((resolve) => (ended = resolve));
start = process.hrtime.bigint();
await enqueue();
await all;
console.log(whole, enqueued, worked, seconds(start));
process.exit(0);
