"""Procrastinate under the load of benches/tasks_postgres: TASKS AT_ONCE BATCH, with DATABASE_URL.

A batch above 1 is one of enqueuing: it fetches jobs one by one. No more than 400 tasks, or nobody would wait for the end.
Prints how many it were, and the seconds of enqueuing, of working off, and of both at once.
"""

import asyncio
import logging
import os
import sys
import time

import procrastinate
import psycopg

tasks, at_once, batch = map(int, sys.argv[1:])
tasks = min(tasks, 400)
url = os.environ["DATABASE_URL"]
schema = f"procrastinate_bench_{os.getpid()}_{time.time_ns()}"
logging.disable(logging.CRITICAL)
with psycopg.connect(url, autocommit=True) as around:
    around.execute(f"CREATE SCHEMA {schema}")
connector = procrastinate.PsycopgConnector(
    conninfo=f"{url}?options=-csearch_path%3D{schema}", min_size=at_once + 2, max_size=at_once + 2
)
app = procrastinate.App(connector=connector)


awaited, all_done = 0, asyncio.Event()


def expect(number):
    global awaited
    awaited = number


@app.task(name="noop")
async def noop():
    global awaited
    awaited -= 1
    if awaited == 0:
        all_done.set()


async def main():
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        share = tasks // at_once

        async def produce():
            for first in range(0, share, batch):
                if batch == 1:
                    await noop.defer_async()
                else:
                    await noop.batch_defer_async(*({} for _ in range(min(batch, share - first))))

        async def enqueue():
            await asyncio.gather(*(produce() for _ in range(at_once)))

        def worker(wait):
            # It listens, so that it need not look often.
            return app.run_worker_async(concurrency=at_once, wait=wait, install_signal_handlers=False)

        start = time.perf_counter()
        await enqueue()
        enqueued = time.perf_counter() - start
        start = time.perf_counter()
        await worker(wait=False)
        worked = time.perf_counter() - start
        start = time.perf_counter()
        expect(share * at_once)
        running = asyncio.create_task(worker(wait=True))
        await enqueue()
        await all_done.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        through = time.perf_counter() - start
    with psycopg.connect(url, autocommit=True) as around:
        left = around.execute(f"SELECT count(*) FROM {schema}.procrastinate_jobs WHERE status <> 'succeeded'").fetchone()
        assert left == (0,), left
        around.execute(f"DROP SCHEMA {schema} CASCADE")
    print(share * at_once, enqueued, worked, through)


asyncio.run(main())
