"""A run that diverges says so in one error, on either engine, and what overflows without harm in one warning."""

import contextlib
import threading
import warnings

import numpy as np
import pytest

from refdiff import DoubtWarning, TrainingError
from refdiff.divergence import Overflows
from refdiff.engines.cpu.runtime.thread_pool import parallel_for
from refdiff.sampling import sample
from refdiff.training import State, train, trained
from refdiff.training.trainers.cpu import CPUTrainer


@pytest.mark.parametrize("engine", ["reference", "cpu", "two processes"])
@pytest.mark.parametrize("change", ["train.grid_every=0", "train.grid_every=1"])
def test_a_diverging_run_ends_in_one_error_that_names_the_step(small, tmp_path, engine, change, request):
    if engine == "two processes":
        request.getfixturevalue("two_processes")
    name = engine if engine == "reference" else "cpu"
    config = small.changed([f"engine={name}", "train.learning_rate=1e38", "train.warmup=0", change])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(TrainingError, match=r"^step [12]: .* set train.max_grad_norm$"):
            train(config, tmp_path, progress=False)
    assert not seen


def test_samples_of_weights_that_diverged_are_an_error(small):
    state = State.first(small)
    bias = state.trees["ema"]["denoiser"]["conv_out"]["bias"]
    bias[...] = np.nan
    with pytest.raises(ValueError, match="samples: expected finite numbers, got 128 of 128 that are not"):
        sample(trained(small, state), 2, progress=False)


def test_what_has_no_consequence_is_one_warning():
    overflows = Overflows("advice")
    with overflows.watched("step 1"):
        np.float32(1e38) * np.float32(1e38)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for i in range(2, 4):
            with overflows.watched(f"step {i}"):
                np.float32(1e38) * np.float32(1e38) - np.inf * np.float32(0)
        overflows.tell()
    (one,) = seen
    assert one.category is DoubtWarning
    assert str(one.message) == (
        "step 1: expected numbers that float32 can hold, got overflow on the way to a finite result; advice"
    )


def test_nothing_is_hidden_or_changed_outside(recwarn):
    overflows, before = Overflows("advice"), (np.geterr(), np.geterrcall())
    with overflows.watched("step 1"):
        pass
    overflows.tell()
    with contextlib.suppress(ZeroDivisionError), overflows.watched("step 1"):
        np.float32(1e38) * np.float32(1e38)
        1 / 0  # noqa: B018
    overflows.tell()
    assert not recwarn.list
    assert (np.geterr(), np.geterrcall()) == before
    with np.errstate(over="raise"), pytest.raises(FloatingPointError), overflows.watched("step 1"):
        np.float32(1e38) * np.float32(1e38)


def test_other_threads_note_too(use_threads):
    use_threads(2)
    overflows, large = Overflows("advice"), np.full(10, 1e38, np.float32)
    both = threading.Barrier(2, timeout=10)

    def task(i):
        both.wait()  # so each thread has one task
        if threading.current_thread() is not threading.main_thread():
            large * large

    with overflows.watched("step 1"):
        parallel_for(2, task)
    with pytest.warns(DoubtWarning, match="step 1"):
        overflows.tell()


def test_a_worker_process_notes_too(small, two_processes):
    config = small.changed(["engine=cpu"])
    worker = CPUTrainer(config, State.first(config))
    g = worker.buffers["g0"]
    g[len(g) // 2 + 100 :] = 1e30  # whose squares overflow, in what the worker process adds up
    overflows = Overflows("advice")
    with overflows.watched("step 1"):
        worker.parallel.norms(2, [slice(len(g) // 2), slice(len(g))], 1)
    with pytest.warns(DoubtWarning, match="step 1: .* overflow"):
        overflows.tell()
