// pg-boss under the load of benches/tasks_postgres: node pgboss.mjs TASKS AT_ONCE BATCH, with DATABASE_URL. Its own workers
// look twice a second at most, so here loops fetch and complete, which is faster. One by one, no more than a thousand tasks.
// Prints how many tasks, and the seconds of enqueuing, of working off, and of both at once.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.env.FULMAR_PEERS + "/"));
const PgBoss = require("pg-boss");
const { Pool } = require("pg");

const [tasks, atOnce, batch] = process.argv.slice(2).map(Number);
const schema = `pgboss_bench_${process.pid}_${Date.now()}`;
const share = Math.floor((batch === 1 ? Math.min(tasks, 1000) : tasks) / atOnce);
const whole = share * atOnce;
const boss = new PgBoss({ connectionString: process.env.DATABASE_URL, schema, max: 2 * atOnce, supervise: false, schedule: false });
boss.on("error", (error) => { throw error; });
await boss.start();
await boss.createQueue("noop");
const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;
const each = (loop) => Promise.all(Array.from({ length: atOnce }, loop));

const enqueue = () => each(async () => {
  for (let first = 0; first < share; first += batch) {
    const count = Math.min(batch, share - first);
    if (batch === 1) await boss.send("noop", {});
    else await boss.insert(Array.from({ length: count }, () => ({ name: "noop" })));
  }
});
const work = (until) => each(async () => {
  while (done < until) {
    const jobs = await boss.fetch("noop", { batchSize: batch });
    if (jobs.length === 0) continue;
    await boss.complete("noop", jobs.map((job) => job.id));
    done += jobs.length;
  }
});

let done = 0;
let start = process.hrtime.bigint();
await enqueue();
const enqueued = seconds(start);
start = process.hrtime.bigint();
await work(whole);
const worked = seconds(start);
start = process.hrtime.bigint();
await Promise.all([enqueue(), work(2 * whole)]);
const through = seconds(start);
await boss.stop({ graceful: false });
const pgPool = new Pool({ connectionString: process.env.DATABASE_URL });
await pgPool.query(`DROP SCHEMA ${schema} CASCADE`);
await pgPool.end();
console.log(whole, enqueued, worked, through);
process.exit(0);
