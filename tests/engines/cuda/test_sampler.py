"""Sampling on the device: the same trajectory as `sampling.trajectory` on the host, step by step."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from refdiff.engines import cuda
from refdiff.engines.cuda import sampler
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.context import Context
from refdiff.process import cosine, linear, rescale_zero_terminal_snr
from refdiff.sampling import run
from refdiff.sampling.cuda import tables
from refdiff.sampling.settings import SampleConfig
from refdiff.testing.measures import relative_error

SEED = (1 << 40) + 3
NUMBERS = np.array([5, 0, 70000])
SETTINGS = [
    SampleConfig("ancestral", 6),
    SampleConfig("ancestral", 6, variance="beta", threshold="none"),
    SampleConfig("ddim", 7, eta=0.0),
    SampleConfig("ddim", 5, eta=0.4, spacing="quadratic", threshold="none"),
    SampleConfig("ddim", 20, eta=1.0),
    SampleConfig("euler", 6, spacing="karras"),
    SampleConfig("euler_ancestral", 6, spacing="trailing"),
    SampleConfig("dpmpp_2m", 7),
    SampleConfig("dpmpp_2m", 8, threshold="none"),
    SampleConfig("dpmpp_2m", 1),
]


def network(x, t):
    """As cheap as can be: bounded, and it depends on x and t."""
    return np.tanh(0.3 * x + 0.1 * np.reshape(t, (-1, *[1] * (x.ndim - 1))) - 1).astype(np.float32)


def expected_trajectory(monkeypatch, schedule, settings, prediction, shape):
    monkeypatch.setattr(run, "network_function", lambda *_: lambda batch: network(batch["x"], batch["t"]))
    objective = SimpleNamespace(
        schedule=SimpleNamespace(build=lambda: schedule), prediction=prediction, learned=False, encoders=(), null=()
    )
    trained = SimpleNamespace(
        engine="reference", dtype="float32", settings=settings, shape=shape,
        objective=objective, path="sample", classifier=None, networks={"denoiser": SimpleNamespace(config=None)},
    )  # fmt: skip
    return list(run.make_trajectory(trained)(NUMBERS, SEED, {}))


def check_trajectory(context, dtype, expected, schedule, settings, prediction, shape, most):
    state = sampler.sampler_state(tables(schedule, settings, prediction), NUMBERS, shape, SEED, dtype)
    assert relative_error(cuda.host(state.x), expected[0][1]) <= 1e-6
    for (t, _), (_, x) in pairwise(expected):
        assert np.array_equal(cuda.host(state.t), np.full(len(NUMBERS), t))
        assert np.array_equal(cuda.host(state.input), cuda.host(cuda.array(state.x, dtype)))
        y = network(cuda.host(state.input), cuda.host(state.t))
        sampler.sampler_step(state, context.array(y, dtype))
        assert relative_error(cuda.host(state.x), x) <= most
    last = cuda.host(state.x)
    sampler.sampler_step(state, context.array(y, dtype))  # past the end
    assert np.array_equal(cuda.host(state.x), last)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.method}{s.steps}")
@pytest.mark.parametrize("shape", [(2,), (3, 3, 1), (2, 2, 4)])
def test_trajectory(context, monkeypatch, settings, shape):
    schedule = linear(20, 1e-3, 0.3)
    expected = expected_trajectory(monkeypatch, schedule, settings, "eps", shape)
    check_trajectory(context, "float32", expected, schedule, settings, "eps", shape, 1e-5)


@pytest.mark.parametrize("prediction", ["x0", "v", "mu", "score"])
@pytest.mark.parametrize("clip", [True, False])
def test_any_prediction(context, monkeypatch, prediction, clip):
    schedule, settings = cosine(30), SampleConfig("ancestral", 8, threshold="static" if clip else "none")
    expected = expected_trajectory(monkeypatch, schedule, settings, prediction, (2, 2, 3))
    check_trajectory(context, "float32", expected, schedule, settings, prediction, (2, 2, 3), 1e-5)


def test_bfloat16_rounds_only_what_the_network_sees(context, monkeypatch):
    schedule, settings = linear(20, 1e-3, 0.3), SampleConfig("dpmpp_2m", 5)
    expected = expected_trajectory(monkeypatch, schedule, settings, "v", (3, 3, 2))
    check_trajectory(context, "bfloat16", expected, schedule, settings, "v", (3, 3, 2), 1.6e-2)


@pytest.mark.parametrize("method", ["ancestral", "ddim", "dpmpp_2m"])
def test_from_pure_noise(context, monkeypatch, method):
    """alpha_bar_T = 0: x_T says nothing of x_0."""
    schedule, settings = rescale_zero_terminal_snr(linear(20, 1e-3, 0.3)), SampleConfig(method, 5, spacing="trailing")
    expected = expected_trajectory(monkeypatch, schedule, settings, "v", (3,))
    check_trajectory(context, "float32", expected, schedule, settings, "v", (3,), 1e-5)


def test_tables_name_the_methods_they_know():
    for method in ("heun", "dpmpp_2s"):
        with pytest.raises(ValueError, match=r"sample\.method"):
            tables(linear(10), SampleConfig(method, 3))


def test_a_prediction_that_is_not_a_number_stays_one(context):
    schedule, settings = linear(10), SampleConfig("ddim", 2, eta=0.0, threshold="static")
    state = sampler.sampler_state(tables(schedule, settings, "eps"), [0], (4,))
    sampler.sampler_step(state, context.array([[np.nan, np.inf, -np.inf, 0]]))
    assert np.array_equal(np.isfinite(cuda.host(state.x)), [[False, True, True, True]])


def test_a_captured_step_is_the_next_one_each_replay(context):
    schedule, settings = linear(20), SampleConfig("ancestral", 4)
    arena = Context(context.device, Arena(context.device, 1 << 16))
    table = tables(schedule, settings, "eps")
    with cuda.use(arena):
        direct, captured = (sampler.sampler_state(table, NUMBERS, (2, 3), SEED) for _ in range(2))
        y = arena.array(network(np.zeros((3, 2, 3)), 1))
        graph = arena.capture(lambda: sampler.sampler_step(captured, y))
        assert graph.launches == 2
        for _ in range(4):
            sampler.sampler_step(direct, y)
            graph.replay()
            assert np.array_equal(cuda.host(direct.x), cuda.host(captured.x))
        assert cuda.host(captured.step) == 4
