"""Noise on the CUDA engine: the same numbers as `refdiff.random`, and the same training batch as `train_step` makes."""

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff import random
from refdiff.engines import cuda
from refdiff.engines.cuda import noise
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.process import PREDICTIONS, cosine, linear, q_sample, rescale_zero_terminal_snr, target
from refdiff.random import Sequence, Stream
from refdiff.testing.measures import relative_error
from refdiff.training.trainers.cuda import noise_table

SEED = (5 << 32) + 0xFFFFFFFF


@pytest.mark.parametrize("shape", [(), (1,), (5, 3), (4, 4, 2), (259,)])
@pytest.mark.parametrize("step", [0, 0xFFFFFFFF])
def test_normal(context, dtype, shape, step):
    key = Sequence(SEED, Stream.NOISE, step)
    wanted = random.normal(key, np.arange(3), shape)
    came = cuda.host(noise.normal(key, 3, shape, dtype))
    most = 1e-6 if dtype == "float32" else 2.0**-8 * np.abs(wanted).max()
    assert came.shape == wanted.shape
    assert np.abs(came - wanted).max() <= most


def test_normal_of_chosen_samples_and_a_step_on_the_device(context):
    index = np.array([7, 0, 123456])
    wanted = random.normal(Sequence(3, Stream.STEP, 9), index, (6,))
    key = Sequence(3, Stream.STEP, context.array(9, "int32"))
    assert np.abs(cuda.host(noise.normal(key, context.array(index, "int32"), (6,))) - wanted).max() <= 1e-6


@pytest.mark.parametrize("first", [0, 3, 64])
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_a_shards_numbers_are_those_of_its_samples(context, first, on_device):
    """Sample i is number first + i: the shard has the bits that the whole batch has there."""

    def key(stream, first):
        step = context.array(7, "int32") if on_device else 7
        return Sequence(SEED, stream, step, context.array(first, "int32") if on_device else first)

    ids, host_key = np.arange(5), Sequence(SEED, Stream.TIME, 7, first)
    whole, shard = (cuda.host(noise.normal(key(Stream.NOISE, f), n, (3,))) for f, n in ((0, first + 5), (first, 5)))
    assert np.array_equal(shard, whole[first:])
    assert np.abs(shard - random.normal(host_key._replace(stream=Stream.NOISE), ids, (3,))).max() <= 1e-6
    some = noise.normal(key(Stream.NOISE, first), context.array([4, 0], "int32"), (3,))
    assert np.array_equal(cuda.host(some), shard[[4, 0]])
    actual = cuda.host(noise.integers(key(Stream.TIME, first), 5, 1, 1000))
    assert np.array_equal(actual, random.integers(host_key, ids, 1, 1000))


@pytest.mark.parametrize("first", [3, 64])
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_a_shard_of_a_batch(context, first, on_device):
    """The bits of x_t, t and the target are those that the whole batch has there."""
    x0 = np.random.default_rng(0).uniform(-1, 1, (first + 2, 6)).astype(np.float32)
    table, step = context.array(noise_table(linear(50), "v")), context.array(3, "int32")
    place = context.array(first, "int32") if on_device else first
    whole = noise.diffuse_batch(context.array(x0), table, SEED, step)
    shard = noise.diffuse_batch(context.array(x0[first:]), table, SEED, step, first=place)
    for part, all_of_it in zip(shard, whole, strict=True):
        assert np.array_equal(cuda.host(part), cuda.host(all_of_it)[first:])


@pytest.mark.parametrize(("low", "high"), [(1, 1000), (0, 0), (-5, 4), (-(2**31), 2**31 - 1), (0, 2**31 - 1)])
def test_integers(context, low, high):
    key = Sequence(SEED, Stream.TIME, 4)
    assert np.array_equal(
        cuda.host(noise.integers(key, 300, low, high)), random.integers(key, np.arange(300), low, high)
    )
    index = np.array([2**31 - 1, 5])
    came = noise.integers(key, context.array(index, "int32"), low, high)
    assert np.array_equal(cuda.host(came), random.integers(key, index, low, high))


def batch(schedule, prediction, x0, seed, step):
    """The lines of `train_step`."""
    place = np.arange(len(x0))
    t = random.integers(Sequence(seed, Stream.TIME, step), place, 1, schedule.T)
    eps = random.normal(Sequence(seed, Stream.NOISE, step), place, x0.shape[1:])
    return t, q_sample(schedule, x0, t, eps), target(schedule, prediction, x0, eps, t)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 4, 2)])
def test_diffuse_batch(context, dtype, prediction, shape):
    schedule = linear(50)
    x0 = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    table = context.array(noise_table(schedule, prediction))
    x_t, t, goal = noise.diffuse_batch(context.array(x0), table, SEED, 3, dtype)
    wanted_t, wanted, wanted_goal = batch(schedule, prediction, x0, SEED, 3)
    assert np.array_equal(cuda.host(t), wanted_t)
    assert x_t.dtype == goal.dtype == dtype
    assert relative_error(cuda.host(x_t), wanted) <= bound(dtype)
    assert relative_error(cuda.host(goal), wanted_goal) <= bound(dtype)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", [linear(1000), cosine(7), linear(1)], ids=["linear", "cosine", "one"])
def test_table(prediction, schedule):
    """Against target() itself, in float64."""
    rng = np.random.default_rng(1)
    t = np.arange(1, schedule.T + 1)
    x0, eps = rng.standard_normal((2, schedule.T, 2))
    a, b, c, d = (column[:, None] for column in noise_table(schedule, prediction)[1:].astype(float).T)
    wanted = target(schedule, prediction, x0, eps, t)
    assert relative_error(a * x0 + b * eps, q_sample(schedule, x0, t, eps)) <= 1e-7
    assert relative_error(c * x0 + d * eps, wanted) <= 1e-7


def test_table_is_finite_where_nothing_of_the_data_is_left():
    schedule = rescale_zero_terminal_snr(linear(10))
    for prediction in ("eps", "x0", "v", "mu"):
        assert np.isfinite(noise_table(schedule, prediction)).all()


def test_a_captured_batch_is_a_new_one_each_replay(context):
    arena = Context(context.device, Arena(context.device, 1 << 16))
    schedule = linear(20)
    values = np.random.default_rng(0).uniform(-1, 1, (3, 2, 2, 1)).astype(np.float32)
    x0, table = arena.array(values), arena.array(noise_table(schedule, "v"))
    counter, kept = arena.array(0, "int32"), []

    def run():
        noise.advance(counter)
        kept[:] = noise.diffuse_batch(x0, table, 1, counter)

    run()
    graph = arena.capture(run)
    for step in (2, 3):
        graph.replay()
        x_t, t, goal = map(cuda.host, kept)
        wanted_t, wanted, wanted_goal = batch(schedule, "v", values, 1, step)
        assert np.array_equal(t, wanted_t)
        assert relative_error(x_t, wanted) <= 1e-6
        assert relative_error(goal, wanted_goal) <= 1e-6
