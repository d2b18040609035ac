"""huey on SQLite under the load of benches/tasks: TASKS AT_ONCE BATCH, with DATABASE_URL, a file.

Every commit waits for the disk (fsync). It has no batches, so that with one above 1 it prints `-`. Its workers are threads, the
faster of its two ways here. A task is deleted when it is taken: no other contender promises so little. Prints how many
tasks, and the seconds of enqueuing, of working off, and of both at once.
"""

import logging
import os
import sys
import threading
import time

from huey import SqliteHuey

tasks, at_once, batch = map(int, sys.argv[1:])
if batch > 1:
    print("-")
    sys.exit()
logging.disable(logging.CRITICAL)
huey = SqliteHuey("bench", filename=os.environ["DATABASE_URL"], fsync=True, results=False, timeout=60)
share = tasks // at_once
lock, all_done = threading.Lock(), threading.Event()
left = 0


@huey.task()
def noop():
    global left
    with lock:
        left -= 1
        if left == 0:
            all_done.set()


def expect(number):
    global left
    left = number
    all_done.clear()


def enqueue():
    def produce():
        for _ in range(share):
            noop()

    threads = [threading.Thread(target=produce) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def consumer():
    # Looks again after a millisecond, and no more than ten.
    consumer = huey.create_consumer(
        workers=at_once, worker_type="thread", periodic=False, initial_delay=0.001, max_delay=0.01, check_worker_health=False
    )
    consumer.start()
    return consumer


expect(share * at_once)
start = time.perf_counter()
enqueue()
enqueued = time.perf_counter() - start
start = time.perf_counter()
running = consumer()
all_done.wait()
worked = time.perf_counter() - start
expect(share * at_once)
start = time.perf_counter()
enqueue()
all_done.wait()
through = time.perf_counter() - start
running.stop()
print(share * at_once, enqueued, worked, through, flush=True)
os._exit(0)
