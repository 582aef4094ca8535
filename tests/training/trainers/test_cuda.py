"""A training step of the CUDA engine, whole and captured, on the emulator, against the reference."""

import copy
import gc
import shutil
import weakref

import numpy as np
import pytest
from emulator import Emulator, Late

from refdiff import DeviceError, TrainingError
from refdiff.config import Config
from refdiff.data import load
from refdiff.models import flatten
from refdiff.training import State, train_step
from refdiff.training.trainers.cuda import CUDATrainer, memory_needed, noise_table

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")


def bfloat16(config):
    return config.changed(["engine=cuda", "dtype=bfloat16"])


def batches(config, count):
    x, n = load("digits").x, config.train.batch
    return [x[i * n : (i + 1) * n] for i in range(count)]


def run(config, count, seed=0, state=None):
    """The trainer and what its steps measured."""
    worker = CUDATrainer(config, config.schedule.build(), state or State.first(config), Emulator(seed))
    return worker, [worker.step(x0) for x0 in batches(config, count)]


def difference(a, b):
    """The largest relative error in norm of any array of two trees."""
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    return max(np.linalg.norm(a[k] - b[k]) / max(np.linalg.norm(b[k]), 1e-12) for k in a if np.abs(b[k]).max() > 1e-9)


@pytest.mark.parametrize("change", ["model.dropout=0.3", "train.prediction=v", "train.clip=0.01"])
def test_captured_steps_do_what_the_pure_step_does(tiny, change):
    """Four steps: one launched, one captured, two replayed."""
    config = tiny.changed([change])
    worker, measured = run(config, 4)
    schedule, state = config.schedule.build(), State.first(config)
    for x0, actual in zip(batches(config, 4), measured, strict=True):
        state, expected = train_step(config, schedule, state, x0)
        assert actual.step == expected.step
        assert actual.loss == pytest.approx(expected.loss, rel=1e-5)
        assert actual.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-4)
        assert actual.learning_rate == pytest.approx(expected.learning_rate, rel=1e-6)
    actual = worker.state()
    assert (actual.step, actual.seen) == (state.step, state.seen)
    for name in ("p", "m", "v", "average"):
        assert difference(getattr(actual, name), getattr(state, name)) <= 1e-3
    assert worker.captured.graph.launches > 100


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_the_digits_preset(dtype):
    config = Config.resolve("digits", changes=["train.batch=2", "engine=cuda", f"dtype={dtype}"])
    worker, (actual,) = run(config, 1)
    state, expected = train_step(config.changed(["engine=reference", "dtype=float32"]), config.schedule.build(),
                               State.first(config), batches(config, 1)[0])  # fmt: skip
    assert actual.loss == pytest.approx(expected.loss, rel=1e-5 if dtype == "float32" else 1e-2)
    assert actual.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5 if dtype == "float32" else 1e-2)
    bound = 1e-5 if dtype == "float32" else 5e-2
    assert difference(worker.state().m, state.m) <= bound


def test_bfloat16_learns_as_float32_does_but_for_rounding(tiny):
    _, measured = run(bfloat16(tiny), 3)
    _, expected = run(tiny, 3)
    for a, b in zip(measured, expected, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=2e-2)
        assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=5e-2)
    assert [m.loss for m in measured] != [m.loss for m in expected]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_order_of_threads_and_blocks_changes_no_bit(tiny, dtype):
    config = tiny if dtype == "float32" else bfloat16(tiny)
    (one, a), (two, b) = run(config, 3), run(config, 3, seed=5)
    assert a == b
    for name in ("p", "m", "v", "average"):
        left, right = flatten(getattr(one.state(), name)), flatten(getattr(two.state(), name))
        assert all(np.array_equal(left[k], right[k]) for k in left)


def test_a_run_goes_on_from_its_state_as_if_it_had_never_stopped(tiny):
    whole, _ = run(tiny, 4)
    half, _ = run(tiny, 2)
    rest = CUDATrainer(tiny, tiny.schedule.build(), half.state(), Emulator())
    for x0 in batches(tiny, 4)[2:]:
        rest.step(x0)
    a, b = whole.state(), rest.state()
    assert (a.step, a.seen) == (b.step, b.seen)
    for name in ("p", "m", "v", "average"):
        left, right = flatten(getattr(a, name)), flatten(getattr(b, name))
        assert all(np.array_equal(left[k], right[k]) for k in left)


def test_a_loss_that_is_not_finite_is_refused_and_nothing_is_written(tiny):
    worker, _ = run(tiny, 2)
    before = flatten(worker.state().p)
    bad = np.full((2, 8, 8, 1), 1e38, np.float32)
    with pytest.raises(TrainingError, match="step 3: expected a finite loss and gradient, got loss"):
        worker.step(bad)
    after = flatten(worker.state().p)
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_steps_that_nobody_waits_for(tiny):
    """The host is a step ahead, never two: batches and results take turns in pinned memory, and no bit is another."""
    whole, measured = run(tiny, 4)
    late = Late()
    worker = CUDATrainer(tiny, tiny.schedule.build(), State.first(tiny), late)
    for i, x0 in enumerate(batches(tiny, 3)):
        x0 = x0.copy()
        assert worker.step(x0, wait=False) is None
        x0[:] = np.nan  # the caller's again
        assert late.waits == i
        assert i == 0 or late.queue
    assert worker.step(batches(tiny, 4)[3]) == measured[3]
    a, b = whole.state(), worker.state()
    assert (a.step, a.seen) == (b.step, b.seen) == (4, 8)
    for name in ("p", "m", "v", "average"):
        left, right = flatten(getattr(a, name)), flatten(getattr(b, name))
        assert all(np.array_equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("by", ["step", "waiting step", "state"])
def test_a_step_that_is_not_finite_is_told_a_step_late_under_its_own_number(tiny, by):
    """Nothing of it is in the state, nor of the good batch that was queued after it."""
    good, bad = batches(tiny, 3), np.full((2, 8, 8, 1), 1e38, np.float32)
    worker, _ = run(tiny, 2)
    before = worker.state()
    worker.step(bad, wait=False)
    calls = {
        "step": lambda: worker.step(good[2], wait=False),
        "waiting step": lambda: worker.step(good[2]),
        "state": worker.state,
    }
    with pytest.raises(TrainingError, match="step 3: expected a finite loss and gradient, got loss nan"):
        calls[by]()
    after = worker.state()
    assert (after.step, after.seen) == (before.step, before.seen) == (2, 4)
    for name in ("p", "m", "v", "average"):
        left, right = flatten(getattr(before, name)), flatten(getattr(after, name))
        assert all(np.array_equal(left[k], right[k]) for k in left)
    with pytest.raises(TrainingError, match="nothing is trained any more since step 3"):
        worker.step(good[2])


@pytest.mark.parametrize("bad_at", [3, 4, 6])
def test_a_run_that_diverges_saves_no_bad_state(tiny, tmp_path, bad_at):
    """Steps 1 to 6, a checkpoint every second, the log every third: the bad step is named wherever it falls."""
    from refdiff.engines import cuda
    from refdiff.training import batch_indices, load_state, train

    config = tiny.changed(["engine=cuda", "train.steps=6", "train.checkpoint_every=2", "train.log_every=3"])
    digits, n = load("digits"), config.train.batch
    x = digits.x.copy()
    x[batch_indices(config.seed, (bad_at - 1) * n, n, len(x))] = 1e38
    with cuda.use(cuda.Context(Late())):
        data = copy.copy(digits)
        object.__setattr__(data, "x", x)  # past its own check of the range
        with pytest.raises(TrainingError, match=f"step {bad_at}: expected a finite loss .*last good checkpoint is"):
            train(config, tmp_path, progress=False, data=data)
    saved = load_state(tmp_path)[1]
    assert saved.step == (bad_at - 1) // 2 * 2
    assert all(np.all(np.isfinite(leaf)) for leaf in flatten(saved.p).values())


def test_too_little_memory_is_refused_with_the_numbers_before_anything_starts(tiny):
    small = Emulator()
    small.free_bytes = lambda: 1000
    with pytest.raises(DeviceError, match=r"training needs [\d.]+ GiB, 0.00 GiB are free; lower train.batch \(now 2\)"):
        CUDATrainer(tiny, tiny.schedule.build(), State.first(tiny), small)
    assert not small.launches


def test_what_this_machine_cannot_compute_is_refused_before_a_run_is_replaced(tiny, tmp_path, monkeypatch):
    from refdiff import engines
    from refdiff.engines.cuda.runtime import context
    from refdiff.sampling import sample
    from refdiff.training import train

    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    (tmp_path / "config.toml").write_text("a former run")
    config = tiny.changed(["engine=auto", "dtype=bfloat16"])
    for attempt in (lambda: train(config, tmp_path, force=True), lambda: sample(config, State.first(config).p, 2)):
        with pytest.raises(
            ValueError, match=r'dtype: expected float32 on the cpu engine, got bfloat16; take dtype="float'
        ):
            attempt()
    small = Emulator()
    small.free_bytes = lambda: 1000
    monkeypatch.setattr(context, "current", lambda: context.Context(small))
    monkeypatch.setattr("refdiff.engines.cuda.current", lambda: context.Context(small))
    with pytest.raises(DeviceError, match="training needs"):
        train(tiny.changed(["engine=cuda"]), tmp_path, force=True)
    assert (tmp_path / "config.toml").read_text() == "a former run"


def test_the_estimate_is_what_is_used(tiny):
    worker, _ = run(tiny, 3)
    assert worker.arena.extent <= memory_needed(tiny, tiny.schedule.build()) <= worker.arena.reserved
    assert worker.arena.reserved - worker.arena.extent < 4096
    twice = tiny.changed(["train.batch=4"])
    assert memory_needed(twice, twice.schedule.build()) > memory_needed(tiny, tiny.schedule.build())


def test_all_memory_of_a_step_is_given_back(tiny):
    worker, _ = run(tiny, 1)
    used = worker.arena.used
    worker.step(batches(tiny, 1)[0])
    assert worker.arena.used == used


def test_the_table_of_noise_has_a_row_a_step(tiny):
    schedule = tiny.schedule.build()
    table = noise_table(schedule, "eps")
    assert table.shape == (schedule.T + 1, 4)
    assert np.allclose(table[1:, 0] ** 2 + table[1:, 1] ** 2, 1)
    assert np.array_equal(table[1:, 2:], np.tile([0, 1], (schedule.T, 1)))


def test_memory_is_given_back_as_soon_as_the_trainer_is_gone(tiny):
    """Not when the collector of cycles comes by: a GPU's memory would be missing until then."""
    gc.collect()
    gc.disable()
    try:
        worker, _ = run(tiny, 3)
        arena = weakref.ref(worker.arena)
        del worker
        assert arena() is None
    finally:
        gc.enable()
