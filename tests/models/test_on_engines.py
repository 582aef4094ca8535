"""The U-Net with everything on, and the classifier, on the cpu engine and on the CUDA engine, emulated, against the
reference in float64."""

import networks
import numpy as np
import pytest
from emulator import Emulator
from helpers import emulated
from models.cases import case

from refdiff.engines import cpu, cuda, reference
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator
from refdiff.models import ClassifierConfig, Network, UNetConfig, backward, flatten, forward, predict, tree_map
from refdiff.random import Key
from refdiff.testing.measures import relative_error

KEY = Key(5, 2)
ADM = {
    "attention": (4,), "head_channels": 8, "qkv": "interleaved", "conditioning": "scale_shift", "groups": 4, "time": "adm",
    "epsilon": 1e-5, "dropout": 0.2,
}  # fmt: skip
CONFIGS = {
    "as ADM": UNetConfig(
        8, 2, 16, (0.5, 1), 1, stem=0.5, resampling="residual", classes=3, null_label=False, outputs=2, low_res=4, **ADM
    ),
    "the others": UNetConfig(
        8, 1, 16, (1, 1), (1, 2), resampling="residual_projected", rescale="residual", embedding_silu="time", classes=2,
        **ADM,
    ),
    "skips": UNetConfig(8, 1, 8, (1, 1), 1, (), groups=4, rescale="skips", resampling="centred"),
    "classifier": ClassifierConfig(8, 1, 16, (0.5, 1), 1, resampling="residual", classes=5, **ADM),
    "spatial": ClassifierConfig(4, 1, 8, (1,), 1, (), groups=4, pooling="spatial", classes=5),
    "spatial_v2": ClassifierConfig(4, 1, 8, (1,), 1, (), groups=4, pooling="spatial_v2", classes=5),
    "adaptive": ClassifierConfig(8, 1, 8, (1, 1), 1, (), groups=4, pooling="adaptive", resampling="plain", classes=5),
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def exact(request, drawn):
    """A case, and what the reference says of it in float64: (config, p, batch, dy), (y, dinputs, g)."""
    config = CONFIGS[request.param]
    p, x, t = case(drawn, config, 0, dtype=np.float32)
    batch = networks.inputs(config, x, t)
    p64 = tree_map(lambda a: a.astype(np.float64), p)
    batch64 = {k: a.astype(np.float64) if a.dtype == np.float32 else a for k, a in batch.items()}
    y, saved = forward(reference, Network(config, p64), batch64, KEY)
    dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    return (config, p, batch, dy), (
        y,
        *backward(reference, Network(config, p64), dy.astype(np.float64), saved, wrt(batch)),
    )


def wrt(batch):
    return tuple(entry for entry in ("x", "low_res") if entry in batch)


def check(actual, expected):
    (y, dinputs, g), (y_expected, dinputs_expected, g_expected) = actual, expected
    assert relative_error(y, y_expected) <= 1e-5
    assert dinputs.keys() == dinputs_expected.keys()
    for entry, d in dinputs_expected.items():
        assert relative_error(dinputs[entry], d) <= 1e-5, entry
    assert flatten(g).keys() == flatten(g_expected).keys()
    size = max(np.linalg.norm(a) for a in flatten(g_expected).values())
    for path, a in flatten(g_expected).items():
        assert np.linalg.norm(flatten(g)[path] - a) <= 1e-5 * (np.linalg.norm(a) + 1e-2 * size), path


def test_the_cpu_engine_says_what_the_reference_says(exact):
    (config, p, batch, dy), expected = exact
    y, saved = forward(cpu, Network(config, p), batch, KEY)
    check((y, *backward(cpu, Network(config, p), dy, saved, wrt(batch))), expected)
    predicted = predict(cpu, Network(config, p), batch)
    assert config.dropout or np.array_equal(predicted, y)


@emulated
def test_the_cuda_engine_says_what_the_reference_says(exact):
    (config, p, batch, dy), expected = exact
    device = Emulator(0)
    with cuda.use(cuda.Context(device, PerArrayAllocator(device))) as context:
        net = Network(config, tree_map(lambda a: context.array(a, "float32"), p))
        told = {k: context.array(a, "float32" if a.dtype == np.float32 else "int32") for k, a in batch.items()}
        y, saved = forward(cuda, net, told, KEY)
        dinputs, g = backward(cuda, net, context.array(dy, "float32"), saved, wrt(batch))
        actual = cuda.host(y), tree_map(cuda.host, dinputs), tree_map(cuda.host, g)
    check(actual, expected)
