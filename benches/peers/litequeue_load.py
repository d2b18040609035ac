"""litequeue on SQLite under the load of benches/tasks: TASKS AT_ONCE BATCH, with DATABASE_URL, a file.

Every commit waits for the disk: synchronous=FULL, where it sets NORMAL. It has no batches, so that with one above 1 it prints `-`.
Each thread has a connection, as its documentation says, and tries again where it is told that the database is locked. No more
than so many tasks a thread, because threads starve. Prints how many tasks, and the seconds of enqueuing, of working off, and of both at once.
"""

import os
import sqlite3
import sys
import threading
import time

from litequeue import LiteQueue

tasks, at_once, batch = map(int, sys.argv[1:])
if batch > 1:
    print("-")
    sys.exit()
share = tasks // at_once
if at_once > 1:
    share = min(share, 100)


def connect():
    queue = patiently(lambda: LiteQueue(os.environ["DATABASE_URL"], timeout=60))
    queue.conn.execute("PRAGMA synchronous = FULL")
    return queue


def patiently(call):
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise


queues = [connect() for _ in range(2 * at_once)]
done = 0
lock = threading.Lock()


def produce(queue):
    for _ in range(share):
        patiently(lambda: queue.put("null"))


def consume(queue, until):
    global done
    while done < until:
        message = patiently(queue.pop)
        if message is None:
            time.sleep(0.001)
            continue
        patiently(lambda: queue.done(message.message_id))
        with lock:
            done += 1


def timed(*works):
    threads = [threading.Thread(target=work, args=args) for work, args in works]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


whole = share * at_once
enqueued = timed(*((produce, (queue,)) for queue in queues[:at_once]))
worked = timed(*((consume, (queue, whole)) for queue in queues[:at_once]))
through = timed(
    *((produce, (queue,)) for queue in queues[at_once:]), *((consume, (queue, 2 * whole)) for queue in queues[:at_once])
)
assert done == 2 * whole, done
print(whole, enqueued, worked, through)
