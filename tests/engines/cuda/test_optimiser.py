"""A step of the optimiser on the device, against `training.optimiser` in float64."""

import numpy as np
import pytest

from refdiff.engines import cuda
from refdiff.engines.cuda import optimiser, random_numbers
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.testing.measures import relative_error
from refdiff.training import optimiser as reference

CASES = {
    "warmup": {"warmup": 5, "max_grad_norm": 0.0},
    "clipped": {"warmup": 0, "max_grad_norm": 1.5, "weight_decay": 0.1},
    "constant": {"warmup": 3, "decay": "constant", "max_grad_norm": 1e9, "ema_decay": 0.3},
}


def run_reference(settings, p, gs):
    """The lines of `train_step`, in float64. -> the last p, m, v, ema and the norms, rates of all steps."""
    p = ema = {"p": p.astype(np.float64)}
    m = v = reference.zeros_like(p)
    measured = []
    for step, g in enumerate(gs, 1):
        g = {"p": g.astype(np.float64)}
        norm = reference.global_norm(g)
        if settings.max_grad_norm:
            g = reference.clip(g, norm, settings.max_grad_norm)
        rate = reference.learning_rate(step, settings.steps, settings.learning_rate, settings.warmup, settings.decay)
        p, m, v = reference.adamw(p, g, m, v, step, rate, settings.weight_decay)
        ema = reference.moving_average(ema, p, step, settings.ema_decay)
        measured.append((norm, rate))
    return {"p": p["p"], "m": m["p"], "v": v["p"], "ema": ema["p"]}, measured


def gradients(n, steps, seed=0):
    """Of very different sizes, some small enough not to be clipped."""
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(n) * 10.0 ** rng.uniform(-3, 2)).astype(np.float32) for _ in range(steps)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 8, 1027])
def test_twenty_steps(context, dtype, case, n):
    settings = optimiser.OptimiserSettings(steps=20, learning_rate=1e-2, **CASES[case])
    p, gs = np.random.default_rng(n).standard_normal(n).astype(np.float32), gradients(n, 20)
    expected, measured = run_reference(settings, p, gs)
    state = optimiser.flat_state(context.array(p), context.array(p), bfloat16=dtype == "bfloat16")
    step, loss = context.array(0, "int32"), context.array(1.0)
    for g, (norm, rate) in zip(gs, measured, strict=True):
        random_numbers.advance(step)
        optimiser.adamw(state, context.array(g), step, settings, loss)
        actual = optimiser.scalars(state)
        assert actual["gradient_norm"] == pytest.approx(norm, rel=1e-6)
        assert actual["learning_rate"] == pytest.approx(rate, rel=1e-6)
    for name, values in expected.items():
        assert relative_error(cuda.host(getattr(state, name)).astype(np.float64), values) <= 2e-6, name
    assert not cuda.host(state.bad)
    if dtype == "bfloat16":
        assert np.array_equal(cuda.host(state.weights), cuda.host(context.array(cuda.host(state.p), "bfloat16")))
    else:
        assert state.weights is None


def test_many_blocks_sum_one_norm(context):
    n = 3 * 4096 + 5
    g = gradients(n, 1)[0]
    settings = optimiser.OptimiserSettings(steps=2, learning_rate=0.0)
    norms = []
    for _ in range(2):
        state = optimiser.flat_state(cuda.zeros((n,)), cuda.zeros((n,)))
        optimiser.adamw(state, context.array(g), context.array(1, "int32"), settings)
        norms.append(optimiser.scalars(state)["gradient_norm"])
    assert norms[0] == norms[1] == pytest.approx(np.linalg.norm(g.astype(np.float64)), rel=1e-6)


@pytest.mark.parametrize("wrong", ["nan loss", "infinite loss", "nan gradient", "large gradient"])
def test_what_is_not_finite_stops_all_steps_from_writing(context, wrong):
    settings = optimiser.OptimiserSettings(steps=9, learning_rate=0.1)
    p = np.ones(10, np.float32)
    state = optimiser.flat_state(context.array(p), context.array(p), bfloat16=True)
    fine = context.array(np.ones(10)), context.array(1.0)
    g, loss = np.ones(10), 1.0
    if "loss" in wrong:
        loss = np.nan if "nan" in wrong else -np.inf
    else:
        g[7] = np.nan if "nan" in wrong else 1e30
    optimiser.adamw(state, fine[0], context.array(1, "int32"), settings, fine[1])
    before = [cuda.host(x) for x in state[:5]]
    assert before[0][0] < 1
    optimiser.adamw(state, context.array(g), context.array(2, "int32"), settings, context.array(loss))
    optimiser.adamw(state, fine[0], context.array(3, "int32"), settings, fine[1])
    optimiser.adamw(state, context.array(g), context.array(4, "int32"), settings, context.array(loss))
    assert all(np.array_equal(cuda.host(x), y) for x, y in zip(state[:5], before, strict=True))
    assert cuda.host(state.bad) == 2


@pytest.mark.parametrize("wrong", ["first", "second", "a term", None])
def test_networks_that_share_a_flag_are_written_all_or_none(context, wrong):
    """Each is prepared before the first is applied; a term that is not finite counts too, wherever it stands."""
    settings, step = optimiser.OptimiserSettings(steps=9, learning_rate=0.1), context.array(1, "int32")
    first, second = (optimiser.flat_state(*(context.array(np.ones(n)) for _ in range(2))) for n in (10, 5))
    second = second._replace(bad=first.bad)
    gradients = [np.full(10, np.nan if wrong == "first" else 1), np.full(5, np.inf if wrong == "second" else 1)]
    gradients = [context.array(g) for g in gradients]
    losses = context.array([1, 2, np.nan if wrong == "a term" else 3])
    for state, g in zip((first, second), gradients, strict=True):
        optimiser.prepare(state, g, step, settings, losses)
    for state, g in zip((first, second), gradients, strict=True):
        optimiser.apply(state, g, settings)
    assert cuda.host(first.bad) == (1 if wrong else 0)
    for state in (first, second):
        assert np.all(cuda.host(state.p) == 1) == np.all(cuda.host(state.m) == 0) == bool(wrong)


def test_copy_segments_puts_each_gradient_in_its_place(context):
    sizes, flat = [1, 3 * optimiser.COPY_CHUNK, 37, optimiser.COPY_CHUNK + 2], cuda.zeros((20 * 1024,))
    arrays = [np.random.default_rng(n).standard_normal(n).astype(np.float32) for n in sizes]
    places = [4, 16, 17000, 12800]
    expected, copies, kept = np.zeros(flat.size, np.float32), [], [context.array(a) for a in arrays]
    for place, a, x in zip(places, arrays, kept, strict=True):
        expected[place : place + len(a)] = a
        copies.append(optimiser.copy_table(x, flat.pointer + 4 * place))
    optimiser.copy_segments(context.array(np.concatenate(copies), "int64"))
    assert np.array_equal(cuda.host(flat), expected)


def test_a_captured_step_is_the_next_one_each_replay(context):
    arena = Context(context.device, Arena(context.device, 1 << 16))
    settings = optimiser.OptimiserSettings(steps=6, learning_rate=1e-2, warmup=2, max_grad_norm=1.0)
    p, g = np.random.default_rng(0).standard_normal((2, 37)).astype(np.float32)
    expected, _ = run_reference(settings, p, [g] * 4)
    gradient, step, kept = arena.array(g), arena.array(0, "int32"), []
    with cuda.use(arena):
        state = optimiser.flat_state(arena.array(p), arena.array(p))

        def run():
            random_numbers.advance(step)
            optimiser.adamw(state, gradient, step, settings)
            kept.append(step)

        run()
        graph = arena.capture(run)
        for _ in range(3):
            graph.replay()
    assert graph.launches == 4
    for name, values in expected.items():
        assert relative_error(cuda.host(getattr(state, name)).astype(np.float64), values) <= 1e-6, name
