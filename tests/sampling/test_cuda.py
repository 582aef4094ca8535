"""A sampling step of the CUDA engine, whole and captured, on the emulator, against the reference."""

import shutil

import numpy as np
import pytest
from emulator import Emulator

from refdiff import DeviceError, models
from refdiff.sampling import trajectory
from refdiff.sampling.cuda import METHODS, CUDASampler
from refdiff.training import State

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")


@pytest.mark.parametrize("method", METHODS)
def test_captured_sampling_steps_do_what_the_samplers_do(tiny, method):
    config = tiny.changed([f"sample.method={method}", "sample.steps=3"])
    rng = np.random.default_rng(0)
    p = models.tree_map(lambda a: (a + 0.05 * rng.standard_normal(a.shape)).astype("f"), State.first(config).p)
    sample_ids = np.array([3, 9])
    actual, expected = (
        list(CUDASampler(config, p, Emulator())(sample_ids, 7)),
        list(trajectory(config, p, sample_ids, 7)),
    )
    assert [t for t, _ in actual] == [t for t, _ in expected]
    for (_, a), (_, b) in zip(actual, expected, strict=True):
        assert np.linalg.norm(a - b) <= 2e-5 * np.linalg.norm(b)
    last = list(CUDASampler(config, p, Emulator())(sample_ids, 7, every=False))
    assert [x is None for _, x in last] == [False, True, True, False]
    assert np.array_equal(last[-1][1], actual[-1][1])


def test_too_little_memory_is_refused_with_the_numbers(tiny):
    small = Emulator()
    sampler = CUDASampler(tiny, State.first(tiny).p, small)
    small.free_bytes = lambda: 1000
    with pytest.raises(DeviceError, match=r"2 samples at once need [\d.]+ GiB, 0.00 GiB are free; take fewer"):
        list(sampler(np.arange(2)))
