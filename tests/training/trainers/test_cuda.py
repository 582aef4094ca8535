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
from refdiff.engines.cuda.runtime.memory import ALIGNMENT
from refdiff.models import flatten
from refdiff.random import Key
from refdiff.testing.measures import relative_error
from refdiff.training import State, train_step
from refdiff.training.state import TREES
from refdiff.training.trainers.cuda import CUDATrainer, plan

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
LABELS = ["model.classes=10", 'objective.null=[["label", 10, 0.5]]']
UPSAMPLER = [*LABELS, "model.low_res=4", "model.conditioning=scale_shift", "model.resampling=residual"]
CHANGES = [
    ["model.dropout=0.3"], ["objective.prediction=v", "train.max_grad_norm=0.01"], LABELS,
    ["objective.weighting=min_snr", "schedule.T=4", "sample.steps=4"], ["objective.variance=learned", "schedule.T=50"],
    ["train.shards=2", "train.batch=4"], UPSAMPLER[::-1],
]  # fmt: skip


def bfloat16(config):
    return config.changed(["engine=cuda", "dtype=bfloat16"])


def batches(config, count):
    """Whole batches with their labels, as the data set gives them."""
    data, n = load("digits"), config.train.batch
    return [data.rows(np.arange(i * n, (i + 1) * n), Key(0, i)) for i in range(count)]


def run(config, count, seed=0, state=None):
    """The trainer and what its steps measured."""
    worker = CUDATrainer(config, state or State.first(config), Emulator(seed))
    return worker, [worker.step(data) for data in batches(config, count)]


def difference(a, b):
    """The largest relative error in norm of any array of two trees."""
    a, b = flatten(a), flatten(b)
    assert a.keys() == b.keys()
    return max(np.linalg.norm(a[k] - b[k]) / max(np.linalg.norm(b[k]), 1e-12) for k in a if np.abs(b[k]).max() > 1e-9)


def same(a, b):
    """Whether two states are the same to the bit."""
    trees = [flatten(state.trees) for state in (a, b)]
    assert trees[0].keys() == trees[1].keys()
    numbers = [(s.step, s.samples_seen, s.updates, s.memory, s.numbers, s.digests) for s in (a, b)]
    return numbers[0] == numbers[1] and all(np.array_equal(trees[0][k], trees[1][k]) for k in trees[0])


@pytest.mark.parametrize("changes", CHANGES, ids=lambda c: c[0])
def test_captured_steps_do_what_the_pure_step_does(tiny, changes):
    """Four steps: one launched, one captured, two replayed."""
    config = tiny.changed(changes)
    worker, measured = run(config, 4)
    state = State.first(config)
    for data, actual in zip(batches(config, 4), measured, strict=True):
        state, expected = train_step(config, state, data)
        assert actual.step == expected.step
        assert actual.terms == pytest.approx(expected.terms, rel=1e-5)
        assert actual.norms == pytest.approx(expected.norms, rel=1e-4)
        assert actual.learning_rates == pytest.approx(expected.learning_rates, rel=1e-6)
    actual = worker.state()
    assert (actual.step, actual.samples_seen, actual.updates) == (state.step, state.samples_seen, state.updates)
    for tree in TREES:
        assert difference(actual.trees[tree], state.trees[tree]) <= 1e-3
    assert worker.captured.graph.launches > 100


@pytest.mark.parametrize("changes", CHANGES, ids=lambda c: c[0])
def test_bfloat16_learns_as_float32_does_but_for_rounding(tiny, changes):
    config = tiny.changed(changes)
    worker, measured = run(bfloat16(config), 3)
    state, whole = State.first(config), []
    for data in batches(config, 3):
        state, expected = train_step(config, state, data)
        whole.append(expected)
    for a, b in zip(measured, whole, strict=True):
        assert a.terms == pytest.approx(b.terms, rel=2e-2)
        assert a.norms == pytest.approx(b.norms, rel=5e-2)
    assert [m.loss for m in measured] != [m.loss for m in whole]
    actual, expected = (
        np.concatenate([a.ravel() for a in flatten(s.trees["m"]).values()]) for s in (worker.state(), state)
    )
    assert relative_error(actual, expected) <= 1.6e-2, "of the moving average of the gradients"


def test_what_is_drawn_is_what_the_reference_draws(tiny):
    """t and labels to the bit; noise to its last digits; each part of a batch has the bits that the whole has there."""
    from refdiff.engines import cuda, reference

    config = tiny.changed([*LABELS, "train.batch=8"])
    (data,) = batches(config, 1)
    with cuda.use(cuda.Context(Emulator())) as context:

        def drawn(first, n):
            part = {name: entry[first : first + n] for name, entry in data.items()}
            key = Key(7, context.array(3, "int32"), first, 8).under("Denoising")
            arrays = {k: context.array(a, "float32" if a.dtype.kind == "f" else "int32") for k, a in part.items()}
            return {k: cuda.host(a) for k, a in config.objective.draw(cuda, arrays, key, {}).items()}

        whole, part = drawn(0, 8), drawn(4, 4)
    expected = config.objective.draw(reference, data, Key(7, 3, 0, 8).under("Denoising"), {})
    assert whole.keys() == expected.keys()
    for name, actual in whole.items():
        assert np.array_equal(part[name], actual[4:])
        if name in ("t", "label"):
            assert np.array_equal(actual, expected[name])
        else:
            assert np.abs(actual - expected[name]).max() <= 1e-6
    assert 0 < (whole["label"] == 10).sum() < 8, "some labels are left out"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_the_digits_preset(dtype):
    config = Config.resolve("digits", changes=["train.batch=2", "engine=cuda", f"dtype={dtype}"])
    worker, (actual,) = run(config, 1)
    state, expected = train_step(
        config.changed(["engine=reference", "dtype=float32"]), State.first(config), batches(config, 1)[0]
    )
    assert actual.loss == pytest.approx(expected.loss, rel=1e-5 if dtype == "float32" else 1e-2)
    assert actual.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5 if dtype == "float32" else 1e-2)
    bound = 1e-5 if dtype == "float32" else 5e-2
    assert difference(worker.state().trees["m"], state.trees["m"]) <= bound


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_order_of_threads_and_blocks_changes_no_bit(tiny, dtype):
    config = tiny if dtype == "float32" else bfloat16(tiny)
    (one, a), (two, b) = run(config, 3), run(config, 3, seed=5)
    assert a == b
    assert same(one.state(), two.state())


@pytest.mark.parametrize("changes", [[], [*LABELS, "train.shards=2", "model.dropout=0.3"]], ids=["plain", "all"])
def test_a_run_goes_on_from_its_state_as_if_it_had_never_stopped(tiny, changes):
    config = tiny.changed(changes)
    whole, _ = run(config, 3)
    begun, _ = run(config, 1)
    rest = CUDATrainer(config, begun.state(), Emulator())
    for data in batches(config, 3)[1:]:
        rest.step(data)
    assert same(whole.state(), rest.state())


BAD = {"x": np.full((2, 8, 8, 1), 1e38, np.float32)}


def test_a_loss_that_is_not_finite_is_refused_and_nothing_is_written(tiny):
    worker, _ = run(tiny, 2)
    before = worker.state()
    with pytest.raises(TrainingError, match="step 3: expected a finite loss and gradient, got loss"):
        worker.step(BAD)
    assert same(before, worker.state())


def test_steps_that_nobody_waits_for(tiny):
    """The host is a step ahead, never two: batches and results take turns in pinned memory, and no bit is another."""
    config = tiny.changed(LABELS)
    whole, measured = run(config, 4)
    late = Late()
    worker = CUDATrainer(config, State.first(config), late)
    for i, data in enumerate(batches(config, 3)):
        data = {name: entry.copy() for name, entry in data.items()}
        assert worker.step(data, wait=False) is None
        for entry in data.values():
            entry[...] = 99  # the caller's again
        assert late.waits == i
        assert i == 0 or late.queue
    assert worker.step(batches(config, 4)[3]) == measured[3]
    assert same(whole.state(), worker.state())


@pytest.mark.parametrize("by", ["step", "waiting step", "state"])
def test_a_step_that_is_not_finite_is_told_a_step_late_under_its_own_number(tiny, by):
    """Nothing of it is in the state, nor of the good batch that was queued after it."""
    good = batches(tiny, 3)
    worker, _ = run(tiny, 2)
    before = worker.state()
    worker.step(BAD, wait=False)
    calls = {
        "step": lambda: worker.step(good[2], wait=False),
        "waiting step": lambda: worker.step(good[2]),
        "state": worker.state,
    }
    with pytest.raises(TrainingError, match="step 3: expected a finite loss and gradient, got loss nan"):
        calls[by]()
    after = worker.state()
    assert (after.step, after.samples_seen) == (2, 4)
    assert same(before, after)
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
    assert all(np.all(np.isfinite(leaf)) for leaf in flatten(saved.trees["p"]).values())


def test_too_little_memory_is_refused_with_the_numbers_before_anything_starts(tiny):
    small = Emulator()
    small.free_bytes = lambda: 1000
    with pytest.raises(DeviceError, match=r"training needs [\d.]+ GiB, 0.00 GiB are free; lower train.batch \(now 2\)"):
        CUDATrainer(tiny, State.first(tiny), small)
    assert not small.launches


def test_what_this_machine_cannot_compute_is_refused_before_a_run_is_replaced(tiny, tmp_path, monkeypatch):
    from refdiff import engines
    from refdiff.engines.cuda.runtime import context
    from refdiff.sampling import sample
    from refdiff.training import train, trained

    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    (tmp_path / "config.toml").write_text("a former run")
    config = tiny.changed(["engine=auto", "dtype=bfloat16"])
    for attempt in (
        lambda: train(config, tmp_path, force=True),
        lambda: sample(trained(config, State.first(config)), 2),
    ):
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


@pytest.mark.parametrize("changes", [[], *CHANGES], ids=lambda c: c[0] if c else "plain")
def test_the_estimate_is_what_is_used(tiny, changes):
    config = tiny.changed(changes)
    worker, _ = run(config, 3)
    needed = plan(config).nbytes
    assert worker.arena.extent <= needed <= worker.arena.reserved
    assert worker.arena.reserved - worker.arena.extent < 4096
    assert plan(config.changed(["train.batch=8"])).nbytes > needed


@pytest.mark.parametrize(
    ("changes", "columns"), [([], 5), (["objective.variance=learned", "sample.variance=beta"], 5 + 9)]
)
def test_tables_count_among_the_memory_that_is_needed(tiny, changes, columns):
    """Rows of t = 0 .. T, which lie on the device beside the arena."""
    config = tiny.changed(changes)
    found, small = plan(config), Emulator()
    assert found.tables == 4 * 1001 * columns
    whole = found.nbytes + found.tables + ALIGNMENT
    small.free_bytes = lambda: whole - 1
    with pytest.raises(DeviceError, match="training needs"):
        CUDATrainer(config, State.first(config), small)
    small.free_bytes = lambda: whole
    CUDATrainer(config, State.first(config), small).step(batches(config, 1)[0])


def test_all_memory_of_a_step_is_given_back(tiny):
    worker, _ = run(tiny, 1)
    used = worker.arena.used
    worker.step(batches(tiny, 1)[0])
    assert worker.arena.used == used


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
