"""A program written against plain multiprocessing; one line of it says which multiprocessing that is.

python everyday.py fork|spawn|forkserver
"""

import multiprocessing as mp
import sys
import time
from queue import Empty, Full


def add(lock, counter, laps):
    for _ in range(laps):
        with lock:
            seen = counter.value
            time.sleep(0)
            counter.value = seen + 1


def nested(rlock, counter):
    with rlock, rlock:
        counter.value += 1


def release_for_another(lock):
    lock.release()


def crossing(semaphore, inside, most):
    with semaphore:
        with inside.get_lock():
            inside.value += 1
            most.value = max(most.value, inside.value)
        time.sleep(0.001)
        with inside.get_lock():
            inside.value -= 1


def consume(condition, shelf, done):
    for _ in range(10):
        with condition:
            condition.wait_for(lambda: shelf.value > 0, 60)
            shelf.value -= 1
            condition.notify_all()
    with done.get_lock():
        done.value += 1


def produce(condition, shelf, n):
    for _ in range(n):
        with condition:
            condition.wait_for(lambda: shelf.value < 3, 60)
            shelf.value += 1
            condition.notify_all()


def wait_for(event, ready, answers):
    ready.release()
    answers.put(event.wait(60))


def meet(barrier, places):
    places.put(barrier.wait(60))


def square_all(tasks, results):
    for n in iter(tasks.get, None):
        results.put((n, n * n))


def work_off(jobs, sums):
    while True:
        n = jobs.get()
        try:
            if n is None:
                return
            with sums.get_lock():
                sums[n % 3] += n
        finally:
            jobs.task_done()


def echo(connection, simple):
    connection.send(simple.get()[::-1])
    connection.close()


def keep(lock, array):
    global kept
    kept = lock, array


def count_letter(text):
    lock, array = kept
    with lock:
        array[len(text)] += 1
    return text.upper()


def use_managed(numbers, table, lock):
    with lock:
        numbers.append(len(numbers))
        table[mp.current_process().name] = True


def run(*processes):
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def locks():
    lock, rlock = mp.Lock(), mp.RLock()
    counter = mp.Value("i", 0, lock=False)
    run(*(mp.Process(target=add, args=(lock, counter, 100)) for _ in range(3)))
    assert counter.value == 300
    run(*(mp.Process(target=nested, args=(rlock, counter)) for _ in range(2)))
    assert counter.value == 302
    assert lock.acquire(block=True, timeout=1) and not lock.acquire(False) and not lock.acquire(timeout=0.01)
    run(mp.Process(target=release_for_another, args=(lock,)))
    assert lock.acquire(block=False)
    lock.release()
    try:
        lock.release()
    except ValueError:
        pass
    else:
        raise AssertionError("released twice")
    semaphore, inside, most = mp.Semaphore(2), mp.Value("i", 0), mp.Value("i", 0)
    run(*(mp.Process(target=crossing, args=(semaphore, inside, most)) for _ in range(4)))
    assert 1 <= most.value <= 2 and semaphore.get_value() == 2


def conditions():
    condition, shelf, done = mp.Condition(mp.Lock()), mp.Value("i", 0), mp.Value("i", 0)
    consumers = [mp.Process(target=consume, args=(condition, shelf, done)) for _ in range(2)]
    run(*consumers, mp.Process(target=produce, args=(condition, shelf, 20)))
    assert (shelf.value, done.value) == (0, 2)
    event, ready, answers = mp.Event(), mp.Semaphore(0), mp.SimpleQueue()
    waiters = [mp.Process(target=wait_for, args=(event, ready, answers)) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    assert ready.acquire(timeout=60) and ready.acquire(timeout=60)
    event.set()
    assert answers.get() and answers.get()
    for waiter in waiters:
        waiter.join(60)
    barrier, places = mp.Barrier(3), mp.Queue()
    run(*(mp.Process(target=meet, args=(barrier, places)) for _ in range(3)))
    assert sorted(places.get(timeout=60) for _ in range(3)) == [0, 1, 2]


def queues():
    tasks, results = mp.Queue(), mp.Queue(maxsize=100)
    workers = [mp.Process(target=square_all, args=(tasks, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for n in [*range(20), None, None]:
        tasks.put(n)
    assert dict(results.get(timeout=60) for _ in range(20)) == {n: n * n for n in range(20)}
    for worker in workers:
        worker.join(60)
    full = mp.Queue(1)
    full.put("x" * 1_000_000, timeout=60)
    for method, wrong in ((lambda: full.put(1, False), Full), (lambda: tasks.get(timeout=0.01), Empty)):
        try:
            method()
        except wrong:
            pass
        else:
            raise AssertionError(wrong)
    assert full.full() and full.qsize() == 1 and len(full.get(timeout=60)) == 1_000_000
    jobs, sums = mp.JoinableQueue(), mp.Array("i", 3)
    worker = mp.Process(target=work_off, args=(jobs, sums))
    worker.start()
    for n in [*range(30), None]:
        jobs.put(n)
    jobs.join()
    worker.join(60)
    assert sum(sums) == sum(range(30))
    ours, theirs = mp.Pipe()
    simple = mp.SimpleQueue()
    simple.put([1, 2, 3])
    run(mp.Process(target=echo, args=(theirs, simple)))
    assert ours.recv() == [3, 2, 1] and simple.empty()


def pools():
    lock, array = mp.Lock(), mp.Array("i", 5)
    with mp.Pool(2, keep, (lock, array)) as pool:
        assert pool.map(count_letter, ["a", "bb", "ccc", "dddd"] * 3) == ["A", "BB", "CCC", "DDDD"] * 3
        assert pool.apply_async(count_letter, ("a",)).get(60) == "A"
        assert sorted(pool.imap_unordered(len, ["a", "bb"])) == [1, 2]
    assert array[:] == [0, 4, 3, 3, 3]
    with mp.Manager() as manager:
        numbers, table, lock = manager.list(), manager.dict(), manager.Lock()
        run(*(mp.Process(target=use_managed, args=(numbers, table, lock)) for _ in range(2)))
        assert list(numbers) == [0, 1] and len(table) == 2


if __name__ == "__main__":
    mp.set_start_method(sys.argv[1])
    for part in (locks, conditions, queues, pools):
        part()
    assert mp.active_children() == []
    print("all is well under", mp.get_start_method())
