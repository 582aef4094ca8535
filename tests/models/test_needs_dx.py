"""The gradient of what is data is left out: by `models.backward` where it is not asked for, and by training always."""

import networks
import numpy as np
import pytest

from refdiff import engines, models
from refdiff.config import Config
from refdiff.engines import cuda, reference
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.dry_run import DryRunDevice
from refdiff.models import MODELS, MLPConfig, UNetConfig, flatten, layout
from refdiff.training import State, train_step

CONFIGS = {"unet": UNetConfig(8, 3, 8, (1, 2), 1, (4,), groups=4), "mlp": MLPConfig(width=8)}


@pytest.mark.parametrize("engine", ["reference", "cpu"])
@pytest.mark.parametrize("name", CONFIGS)
def test_without_dx_the_gradients_are_the_same_bits(drawn, name, engine):
    config, engine = CONFIGS[name], engines.get(engine)
    rng = np.random.default_rng(0)
    p, t = drawn(layout(config), 0, np.float32), rng.integers(1, 1001, 2)
    x = rng.standard_normal((2, *config.shape), dtype=np.float32)
    y, saved = networks.forward(engine, config, p, x, t)
    dx, g = networks.backward(engine, config, y, saved)
    assert dx.shape == x.shape
    without, same = networks.backward(engine, config, y, saved, needs_dx=False)
    assert without is None
    assert flatten(same).keys() == flatten(g).keys()
    assert all(np.array_equal(a, flatten(g)[key]) for key, a in flatten(same).items())


def launches(config, needs_dx):
    """The kernels of a backward, on a device that runs nothing."""
    device = DryRunDevice()
    with cuda.use(cuda.Context(device, Arena(device, 1 << 40))) as context:
        p = models.tree_map(lambda spec: context.empty(spec.shape), layout(config))
        x, t = context.empty((4, *config.shape)), context.empty((4,), "int32")
        y, saved = networks.forward(cuda, config, p, x, t)
        device.launches.clear()
        networks.backward(cuda, config, y, saved, needs_dx)
    return [kernel.name for kernel, _, _ in device.launches]


@pytest.mark.parametrize(("name", "left_out"), [("cifar10", "conv2d_dx"), ("points", "linear_dx")])
def test_one_launch_less_without_dx(name, left_out):
    config = MODELS[name]
    with_dx, without = launches(config, True), launches(config, False)
    convolutions = sum(len(spec.shape) == 4 for spec in flatten(layout(config)).values())
    products = sum(len(spec.shape) == 2 for spec in flatten(layout(config)).values())
    assert with_dx.count("conv2d_dx") == convolutions
    assert with_dx.count("linear_dx") == products - 1, "the sinusoids of the time are data always"
    with_dx.remove(left_out)
    assert sorted(without) == sorted(with_dx)


@pytest.mark.parametrize("preset", ["digits", "mixture"])
def test_training_asks_for_no_gradient_of_data(monkeypatch, preset):
    """Each dx that a step computes belongs to what some other operation made."""
    tiny = ["model.width=8", "train.batch=2", "engine=reference"]
    config = Config.resolve(preset, changes=tiny)
    asked = []
    for name in ("conv2d_backward", "linear_backward"):
        operation = getattr(reference, name)

        def spied(dy, saved, needs_dx=True, operation=operation):
            asked.append((saved[0].shape[-1], needs_dx))
            return operation(dy, saved, needs_dx)

        monkeypatch.setattr(reference, name, spied)
    x0 = np.random.default_rng(0).standard_normal((2, *config.model.shape), dtype=np.float32)
    train_step(config, State.first(config), {"x": x0})
    assert sorted(width for width, needs_dx in asked if not needs_dx) == [config.model.shape[-1], 8], "image, sinusoids"
