"""A sampling step of the CUDA engine, whole and captured, on the emulator, against the reference."""

import shutil

import numpy as np
import pytest
from emulator import Emulator
from toy_networks import ToyClassifier

from refdiff import DeviceError, models
from refdiff.engines import cuda
from refdiff.sampling import network_function, trajectory
from refdiff.sampling.cuda import METHODS, CUDASampler, supports
from refdiff.training import State, trained

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")
IDS = np.array([3, 9])
REMOVED = ["sample.classifier_scale=0", "sample.guidance=1"]
GUIDED = ["model.classes=10", "sample.guidance=2", "sample.threshold=none"]


def model(config, dtype="float32"):
    """Weights that are not the first ones, whose last layer is zero."""
    state, rng = State.first(config), np.random.default_rng(0)
    p = models.tree_map(lambda a: (a + 0.05 * rng.standard_normal(a.shape)).astype("f"), state.trees["p"]["denoiser"])
    state.trees["ema"]["denoiser"] = p
    return trained(config, state)._replace(dtype=dtype)


def check(config, conditions, dtype="float32", bound=2e-5, seed=0):
    sampler = CUDASampler(model(config, dtype), Emulator(seed))
    actual = list(sampler(IDS, 7, conditions))
    expected = list(trajectory(model(config), IDS, 7, conditions))
    assert [t for t, _ in actual] == [t for t, _ in expected]
    for (_, a), (_, b) in zip(actual, expected, strict=True):
        assert np.linalg.norm(a - b) <= bound * np.linalg.norm(b)
    return sampler, actual


@pytest.mark.parametrize("method", METHODS)
def test_captured_sampling_steps_do_what_the_samplers_do(tiny, method):
    sampler, actual = check(tiny.changed([f"sample.method={method}", "sample.steps=3"]), {})
    last = list(sampler(IDS, 7, {}, every=False))
    assert [x is None for _, x in last] == [False, True, True, False]
    assert np.array_equal(last[-1][1], actual[-1][1])


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-5), ("bfloat16", 5e-2)])
@pytest.mark.parametrize(
    ("changes", "conditions"),
    [
        (GUIDED, {"label": np.array([3, 7])}),
        (["model.classes=10", "sample.guidance=0"], {"label": np.array([3, 7])}),
        (["model.classes=10"], {"label": np.array([3, 10])}),
        (["objective.variance=learned", "sample.method=ddim"], {}),
        (["objective.prediction=v"], {}),
    ],
    ids=["guided", "unconditional", "labels", "learned", "v"],
)
def test_conditions_guidance_and_a_variance_that_is_learned(tiny, changes, conditions, dtype, bound):
    """bfloat16: guidance by 2 takes the difference of two predictions, so their rounding counts three times."""
    check(tiny.changed([*changes, "sample.steps=3"]), conditions, dtype, bound, seed=4)


def test_small_images_are_buffers_of_a_captured_step(tiny):
    """Guided too, where both passes are told them."""
    low, label = np.random.default_rng(0).uniform(-1, 1, (2, 2, 4, 4, 1)).astype("f"), np.array([3, 7])
    config = tiny.changed([*GUIDED, "model.low_res=4", "sample.steps=3"])
    found = [check(config, {"low_res": each, "label": label})[1][-1][1] for each in low]
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_label_that_is_told_and_guidance_change_the_samples(tiny):
    """And where there is nothing to guide by, guidance does nothing."""
    last = {}
    for scale in (1, 2):
        for label in (3, 10):
            config = tiny.changed(["model.classes=10", f"sample.guidance={scale}", "sample.steps=2"])
            sampler = CUDASampler(model(config), Emulator())
            last[scale, label] = list(sampler(IDS, 7, {"label": np.full(2, label)}, every=False))[-1][1]
    assert np.abs(last[1, 3] - last[1, 10]).max() > 1e-3
    assert np.abs(last[2, 3] - last[1, 3]).max() > 1e-3
    np.testing.assert_allclose(last[2, 10], last[1, 10], atol=1e-5)


def test_a_guided_step_is_captured_with_its_conditions_as_buffers(tiny):
    """Two passes of the network a step, and one graph for all steps."""

    def launches(changes, conditions):
        device, sampled = Emulator(), tiny.changed([*changes, "sample.steps=4"])
        list(CUDASampler(model(sampled), device)(IDS, 7, conditions))
        return [kernel.name for kernel in device.launches]

    guided, plain = launches(GUIDED, {"label": np.array([3, 7])}), launches([], {})
    assert guided.count("embedding") == 2 * 4
    assert guided.count("affine") == 4
    assert guided.count("conv2d") == 2 * plain.count("conv2d")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], True),
        (GUIDED, True),
        (["sample.threshold=dynamic"], False),
        (["sample.method=heun"], False),
        ([*GUIDED, "sample.guidance_interval=[1,500]"], False),
        ([*GUIDED, "sample.guidance_rescale=0.7"], False),
        (["sample.classifier_scale=2"], False),
        (["objective.variance=learned", "sample.method=ancestral"], False),
        (["objective.variance=learned", "sample.method=ancestral", "sample.variance=beta"], True),
    ],
    ids=str,
)
def test_what_is_captured(tiny, changes, expected):
    assert supports(model(tiny.changed(changes))) == expected


@pytest.mark.parametrize(
    "changes",
    [["sample.threshold=dynamic"], ["sample.method=heun"], ["objective.variance=learned", "sample.method=ancestral"]],
    ids=str,
)
def test_what_is_not_captured_is_sampled_by_the_host_with_the_networks_passes_on_the_device(tiny, changes):
    config = tiny.changed([*changes, "sample.steps=2"])
    expected = list(trajectory(model(config), IDS, 7, {}))
    with cuda.use(cuda.Context(Emulator())) as context:
        actual = list(trajectory(model(config)._replace(engine="cuda"), IDS, 7, {}))
        assert len(context.device.launches) > 50
    for (_, a), (_, b) in zip(actual, expected, strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b), "sigma_T = 157 magnifies the last digit of eps_hat"


@pytest.mark.parametrize(
    "changes",
    [
        ["sample.classifier_scale=3"],
        [
            "sample.classifier_scale=3",
            "sample.method=ancestral",
            "sample.variance=beta",
            "sample.guidance_interval=[600,1000]",
        ],
        [*GUIDED, "sample.guidance_interval=[1,600]", "sample.guidance_rescale=0.7"],
    ],
    ids=str,
)
def test_a_classifier_an_interval_and_rescaling_guide_on_the_device_as_on_the_host(tiny, changes):
    config, conditions = tiny.changed([*changes, "sample.steps=2"]), {"label": np.array([2, 0])}
    own = model(config)
    if config.sample.classifier_scale:
        guide, rng = ToyClassifier(classes=3), np.random.default_rng(1)
        p = models.tree_map(lambda spec: 2 * rng.standard_normal(spec.shape).astype("f"), models.layout(guide))
        own = own._replace(classifier=models.Network(guide, p))
    expected = list(trajectory(own, IDS, 7, conditions))
    plain = list(trajectory(model(tiny.changed([*changes[:1], *REMOVED, "sample.steps=2"])), IDS, 7, {}))
    with cuda.use(cuda.Context(Emulator())) as context:
        actual = list(trajectory(own._replace(engine="cuda"), IDS, 7, conditions))
        assert bool(config.sample.classifier_scale) == any("cross" in kernel.name for kernel in context.device.launches)
    for (_, a), (_, b) in zip(actual, expected, strict=True):
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)
    assert np.abs(expected[-1][1] - plain[-1][1]).max() > 1e-3


def test_too_little_memory_is_refused_with_the_numbers(tiny):
    small = Emulator()
    sampler = CUDASampler(model(tiny), small)
    small.free_bytes = lambda: 1000
    with pytest.raises(DeviceError, match=r"2 samples at once need [\d.]+ GiB, 0.00 GiB are free; take fewer"):
        list(sampler(np.arange(2), 0, {}))
    assert not small.launches


def test_what_is_asked_of_a_network_of_bfloat16_keeps_its_digits():
    """A table's numbers and times between 0 and 1 are float32 there; what a matrix makes is rounded."""

    def asked(config, dtype, **batch):
        network = models.Network(config, models.initialise(models.layout(config), 0))
        with cuda.use(cuda.Context(Emulator())):
            return network_function("cuda", network, dtype)(batch)

    ends = asked(models.TableConfig(1, 2, (-13.3, 5.1)), "bfloat16", index=np.zeros(3, np.int64))
    assert ends.tolist() == np.float32([[-13.3, 5.1]] * 3).tolist()
    t = np.float32([0.123456, 0.5, 1])
    curve = [asked(models.MonotoneConfig(8), dtype, t=t) for dtype in ("bfloat16", "float32")]
    assert curve[0]["f"].tolist() == curve[1]["f"].tolist()
    assert curve[0]["f"][0] != asked(models.MonotoneConfig(8), "bfloat16", t=np.float32([0.12345]))["f"][0]
