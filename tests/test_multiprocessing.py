"""pylocks.multiprocessing has multiprocessing's face, in this process and in those that it starts."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import os
import pickle
import pkgutil
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import dropped_in, run
from support.puppet import START_METHODS
from support.wait import until

import pylocks
import pylocks.multiprocessing as mp

each_method = pytest.mark.parametrize("method", START_METHODS)
PRIMITIVES = ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event")

# Its shared heap keeps a file for as long as the process lives: from before the first test on.
multiprocessing.Value("i")

# ------------------------------------------------------------------ a program that knows nothing of it

EVERYDAY = Path(__file__).parent / "support" / "everyday.py"
ONE_LINE = ("import multiprocessing as mp\n", "import pylocks.multiprocessing as mp\n")


@each_method
def test_a_program_runs_with_one_line_changed(method: str, tmp_path: Path) -> None:
    text = EVERYDAY.read_text()
    assert text.count(ONE_LINE[0]) == 1
    (tmp_path / "everyday.py").write_text(text.replace(*ONE_LINE))
    done = run.python("-W", "error", tmp_path / "everyday.py", method)
    assert done.check() == f"all is well under {method}\n"


def test_the_program_is_one_for_the_standard_library() -> None:
    assert run.python("-W", "error", EVERYDAY, "fork").check() == "all is well under fork\n"


# ------------------------------------------------------------------ names


def test_nothing_is_missing() -> None:
    assert sorted(mp.__all__) == sorted(multiprocessing.__all__)
    for name in mp.__all__:
        assert hasattr(mp, name)
    public = {name for name in vars(multiprocessing) if not name.startswith("_")}
    loaded = {"connection", "context", "process", "reduction"}
    assert public & {*mp.__all__, *loaded, "SUBDEBUG", "SUBWARNING"} <= set(vars(mp))


def test_every_module_of_the_standard_library_is_here_or_is_private() -> None:
    theirs = {module.name for module in pkgutil.iter_modules(multiprocessing.__path__)}
    ours = {module.name for module in pkgutil.iter_modules(mp.__path__)}
    private = {"popen_fork", "popen_forkserver", "popen_spawn_posix", "popen_spawn_win32", "resource_sharer"}
    assert theirs - private <= ours


@pytest.mark.parametrize("name", ["connection", "dummy", "managers", "process", "reduction", "shared_memory"])
def test_what_is_not_replaced_is_the_standard_librarys(name: str) -> None:
    assert importlib.import_module(f"pylocks.multiprocessing.{name}") is importlib.import_module(
        f"multiprocessing.{name}"
    )


@pytest.mark.parametrize("name", ["queues", "synchronize", "sharedctypes", "pool", "context"])
def test_what_is_replaced_offers_the_same(name: str) -> None:
    theirs = importlib.import_module(f"multiprocessing.{name}")
    ours = importlib.import_module(f"pylocks.multiprocessing.{name}")
    assert set(theirs.__all__) <= set(ours.__all__)


def test_pools_and_values_of_the_modules_are_of_these_contexts() -> None:
    from pylocks.multiprocessing.pool import Pool
    from pylocks.multiprocessing.sharedctypes import Value

    assert isinstance(Value("i", 3).get_lock(), mp.synchronize.RLock)
    with Pool(1) as pool:
        assert isinstance(pool._ctx, mp.context.BaseContext)
        assert isinstance(pool._inqueue._rlock, mp.synchronize.Lock)
        assert pool.apply(abs, (-3,)) == 3


# ------------------------------------------------------------------ contexts and start methods


def test_contexts_are_the_same_each_time_and_standard_ones() -> None:
    for method in START_METHODS:
        context = mp.get_context(method)
        assert context is mp.get_context(method) is context.get_context()
        assert context.get_context("spawn") is mp.get_context("spawn")
        assert context.get_start_method() == method
        assert isinstance(context, type(multiprocessing.get_context(method)))
        with pytest.raises(ValueError, match="cannot set start method of concrete context"):
            context.set_start_method("fork")
    for get_context in (mp.get_context, mp.get_context("fork").get_context):
        with pytest.raises(ValueError, match="cannot find context for 'knife'"):
            get_context("knife")


START = """
import {first} as first, {second} as second
assert first.get_start_method(allow_none=True) is None
first.set_start_method("spawn")
assert second.get_start_method() == first.get_start_method() == "spawn"
assert first.get_context().get_start_method() == second.get_context().get_start_method() == "spawn"
for one in (first, second):
    try: one.set_start_method("fork")
    except RuntimeError: pass
    else: raise AssertionError(one)
second.set_start_method("forkserver", force=True)
assert first.get_start_method() == "forkserver"
"""


def test_the_start_method_is_the_processs_whoever_sets_it() -> None:
    names = ("multiprocessing", "pylocks.multiprocessing")
    for first, second in (names, names[::-1]):
        run.python("-c", START.format(first=first, second=second)).check()


@each_method
@pytest.mark.parametrize("module", ["context", "default"])
def test_children_see_the_right_context(method: str, module: str) -> None:
    run.python("-m", "support.dropped_in", module, method).check()


# ------------------------------------------------------------------ what they answer


def test_reprs_name_the_holder() -> None:
    lock, rlock = mp.Lock(), mp.RLock()
    assert (repr(lock), repr(rlock)) == ("<Lock(owner=None)>", "<RLock(None, 0)>")
    with lock, rlock, rlock:
        assert (repr(lock), repr(rlock)) == ("<Lock(owner=MainProcess)>", "<RLock(MainProcess, 2)>")
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.extend((repr(lock), repr(rlock))))
        thread.start()
        thread.join()
        me = f"thread {threading.get_native_id()} of process {os.getpid()}"
        assert answers == [f"<Lock(owner={me})>", f"<RLock({me}, nonzero)>"]
    assert repr(mp.Semaphore(3)) == "<Semaphore(value=3)>"
    assert repr(mp.BoundedSemaphore(3)) == "<BoundedSemaphore(value=3, maxvalue=3)>"
    assert repr(pickle.loads(pickle.dumps(mp.BoundedSemaphore(3)))).endswith("maxvalue=3)>")
    assert repr(mp.Condition(lock)) == "<Condition(<Lock(owner=None)>, 0)>"
    assert repr(mp.Event()).endswith(" unset>")


def test_a_timeout_as_long_as_you_like() -> None:
    for made in (mp.Lock(), mp.RLock(), mp.Semaphore(1)):
        assert made.acquire(timeout=1e300)
        made.release()
    event = mp.Event()
    event.set()
    assert event.wait(1e300) and not mp.Event().wait(-1)


def test_exceptions_are_multiprocessings_and_say_more() -> None:
    with pytest.raises(ValueError, match=r"Lock\(owner=None\).*nobody holds it"):
        mp.Lock().release()
    rlock = mp.RLock()
    with pytest.raises(AssertionError, match="not held by this thread"):
        rlock.release()
    with pytest.raises(pylocks.NotOwnerError):
        rlock.release()
    with pytest.raises(ValueError, match="too often"):
        mp.BoundedSemaphore(1).release()
    for lock in (mp.Lock(), mp.RLock()):
        condition = mp.Condition(lock)
        for method in (condition.wait, condition.notify, condition.notify_all):
            with pytest.raises(AssertionError, match="not held by this thread"):
                method()
    with pytest.raises(TypeError, match="the lock of a condition"):
        mp.Condition(multiprocessing.Lock())
    with pytest.raises(AttributeError, match="has no method 'acquire'"):
        mp.Value("i", lock=3)


def test_a_handlers_runtime_error_is_its_own() -> None:
    """With the lock held, as whatever wait() raises."""

    def fail() -> None:
        raise RuntimeError("of the handler")

    condition = mp.Condition()
    condition_error = pytest.raises(RuntimeError, match="of the handler")
    with condition, condition_error as caught:
        condition._having_it(fail)
    assert not isinstance(caught.value, AssertionError)


@each_method
def test_a_dead_holder_is_told_of_and_keeps_nobody_up(method: str) -> None:
    context = mp.get_context(method)
    for lock in (context.Lock(), context.RLock()):
        child = context.Process(target=dropped_in.die_with, args=(lock,))
        child.start()
        child.join()
        with pytest.warns(pylocks.OwnerDiedWarning, match="died while") as told, lock:
            pass
        assert told[0].filename == __file__


# ------------------------------------------------------------------ on their way


@pytest.mark.parametrize("kind", PRIMITIVES)
def test_a_pickle_is_the_same_object(kind: str) -> None:
    made = getattr(mp, kind)()
    for other in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        assert type(other) is type(made)
        assert (other.domain, other.index) == (made.domain, made.index)


def test_a_barrier_travels() -> None:
    other = pickle.loads(pickle.dumps(mp.Barrier(2, timeout=60)))
    assert type(other) is mp.synchronize.Barrier
    assert (other.parties, other.n_waiting) == (2, 0)


@each_method
def test_all_can_be_passed_to_the_workers_of_a_pool(method: str) -> None:
    """After their start: where multiprocessing's own say that they can only be inherited."""
    context = mp.get_context(method)
    lock, value, array = context.Lock(), context.Value("i", 0), context.Array("d", [0.5, 1.5])
    queues = [context.Queue(), context.JoinableQueue(), context.SimpleQueue()]
    with context.Pool(2) as pool:
        assert sum(pool.starmap(dropped_in.count, [(lock, value, array)] * 20)) == 40.0
        pool.starmap(dropped_in.put_long, [(queue, 5000) for queue in queues])
        assert [len(queue.get()) for queue in queues] == [5000] * 3
    assert value.value == 20
    for queue in queues[:2]:
        queue.close()
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(dropped_in.count, [lock] * 10, [value] * 10, [array] * 10))
    assert value.value == 30


def test_structures_travel() -> None:
    point = mp.Value(dropped_in.Point, 1, 2)
    other = pickle.loads(pickle.dumps(point))
    other.x = 5
    assert (point.x, other.y) == (5, 2)
    assert type(point).__name__ == "SynchronizedPoint"
    text = mp.Array("c", b"abc")
    pickle.loads(pickle.dumps(text)).value = b"xyz"
    assert text.value == b"xyz"


@pytest.mark.parametrize("make", [lambda: mp.Queue(), lambda: mp.Value("i")], ids=["queue", "value"])
def test_what_its_process_gave_up_is_gone(make: Any) -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writable, pickle.dumps(make()))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        data = pipe.read()
    with pytest.raises(mp.ProcessError, match=f"process {child} pickled can't be reached"):
        pickle.loads(data)


JOBLIB = """
import joblib, pylocks.multiprocessing as mp
from support import dropped_in
lock, value, array = mp.Lock(), mp.Value("i", 0), mp.Array("d", [0.0])
task = joblib.delayed(dropped_in.count)
joblib.Parallel(2, backend="loky")(task(lock, value, array) for _ in range(20))
print(value.value)
"""


def test_joblib_takes_them_to_its_workers() -> None:
    """Their default start method is one of its own."""
    pytest.importorskip("joblib")
    assert run.python("-c", JOBLIB).check() == "20\n"


def test_a_queue_of_a_standard_context_is_left_alone() -> None:
    queue: Any = multiprocessing.get_context("fork").SimpleQueue()
    assert not isinstance(queue, mp.queues.SimpleQueue)
    queue.put(1)
    until(lambda: not queue.empty(), "the message")
    queue.close()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_arguments_of_acquire(kind: str) -> None:
    """As multiprocessing reads them; what it would take for a number is none here."""
    lock = getattr(mp, kind)()
    assert lock.acquire() and lock.acquire.__self__ is lock
    lock.release()
    for arguments in ({"block": True, "timeout": 1e300}, {"timeout": -1}, {"block": False, "timeout": 5}):
        assert lock.acquire(**arguments) is True
        lock.release()
    assert str(inspect.signature(type(lock).acquire)) == "(self, /, block=True, timeout=None)"
    for wrong in ({"blocking": True}, {"timeout": "1"}, {"block": True, "wait": 1}):
        with pytest.raises(TypeError):
            lock.acquire(**wrong)
    with pytest.raises(TypeError, match="block=True, timeout=None"):
        lock.acquire(True, 1, 2)
    with pytest.raises(ValueError, match="nan"):
        lock.acquire(True, float("nan"))
    assert lock.acquire(False)
    lock.release()
