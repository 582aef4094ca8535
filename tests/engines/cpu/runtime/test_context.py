"""One context a thread: what a block sets is so inside it, on its thread alone, and afterwards as before."""

import os
import threading
from itertools import permutations

import numpy as np
import pytest

from refdiff.engines import cpu
from refdiff.engines.cpu.runtime import thread_pool
from refdiff.engines.cpu.runtime.arena import Arena
from refdiff.engines.cpu.runtime.blas import single_threaded_blas
from refdiff.engines.cpu.runtime.blocks import Workspace, pool
from refdiff.engines.cpu.runtime.context import Context, current, using
from refdiff.engines.cpu.runtime.gradient_buffer import GradientBuffer
from refdiff.engines.cpu.runtime.memory import empty, scratch
from refdiff.engines.cpu.runtime.shards import shards


class Kind(np.ndarray):
    pass


def observed():
    """What operations of this thread would find."""
    return thread_pool.available(), len(shards(4)), type(empty((2,))), current().allocator, current().gradients


def test_fields_of_a_context_may_be_set_in_any_order(use_threads):
    use_threads(8)
    arena, buffer = Arena(), GradientBuffer(np.zeros(4, np.float32), np.zeros(4, np.float32))
    changes = ({"threads": 3}, {"shards": 1}, {"kind": Kind}, {"allocator": arena}, {"gradients": buffer})
    before = observed()
    assert before == (8, 2, np.ndarray, pool, None)
    for a, b, c, d, e in permutations(changes):
        with using(**a), using(**b), using(**c), using(**d), using(**e):
            assert observed() == (3, 1, Kind, arena, buffer)
        assert observed() == before


def test_an_error_inside_restores_what_was_before():
    before = current()
    with pytest.raises(KeyError), using(threads=1, shards=1):
        raise KeyError
    assert current() is before


def test_a_field_that_there_is_not_is_an_error_and_changes_nothing():
    before = current()
    with pytest.raises(TypeError, match="thread"), using(thread=1):
        pass
    assert current() is before


def test_an_inner_block_gives_way_to_the_outer_one():
    with using(shards=1, threads=1):
        with using(shards=4):
            assert (current().shards, current().threads) == (4, 1)
        assert (current().shards, current().threads) == (1, 1)


def test_a_thread_begins_with_the_defaults_and_its_own_working_space():
    seen = []

    def look():
        seen.append((observed(), current().workspace, scratch("of a test", 5)))

    with using(threads=1, shards=1, kind=Kind, gradients=GradientBuffer(*np.zeros((2, 4), np.float32))):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    [(found, workspace, array)] = seen
    assert found == (cpu.threads(), 2, np.ndarray, pool, None)
    assert workspace is not current().workspace
    assert not np.shares_memory(array, scratch("of a test", 5))


def test_two_contexts_do_not_share_working_space():
    assert Context().workspace is not Context().workspace
    with using(workspace=Workspace()):
        inner = scratch("of a test", 6)
    assert not np.shares_memory(inner, scratch("of a test", 6))


def test_a_workspace_made_of_the_sizes_of_another_takes_each_buffer_once():
    sizes = {}
    with using(workspace=Workspace(sizes)):
        for n in (10, 100_000, 1000):
            scratch("of a test", n)
    fresh = pool.fresh
    with using(workspace=Workspace(sizes)):
        arrays = [scratch("of a test", n) for n in (10, 100_000, 1000)]
    assert pool.fresh == fresh + 1
    assert all(np.shares_memory(a, arrays[1]) for a in arrays)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_of_fork_begins_with_locks_that_nobody_holds(use_threads):
    """Another thread is inside an operation, and threads of the pool are there, when the process forks."""
    use_threads(4)
    thread_pool.parallel_for(8, lambda i: None)  # which starts the threads
    inside, end = threading.Event(), threading.Event()

    def hold():
        with single_threaded_blas:
            inside.set()
            end.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    child = os.fork()
    if child == 0:  # whatever happens, it goes no further
        try:
            alone, done = threading.active_count() == 1, []
            thread_pool.parallel_for(8, done.append)
            helped = threading.active_count() == 4
            os._exit(0 if alone and helped and len(done) == 8 and single_threaded_blas.users == 0 else 1)
        finally:
            os._exit(2)
    end.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
