"""Random numbers as operations of the CPU engine: the bits of the reference, outside of captures alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import cpu, reference
from refdiff.random import Sequence

CUMULATIVE = np.array([0.2, 0.2, 0.9, 1], np.float32)
ARGUMENTS = {
    "normal": ((2, 3),), "uniform": (), "integers": (1, 9), "bernoulli": (0.3,), "categorical": (CUMULATIVE,),
    "antithetic": (12,), "antithetic_steps": (12, 7),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 99))
def test_the_bits_are_those_of_the_reference(name, seed, stream, step, first):
    for n in (0, 1, 9):
        actual, expected = (
            getattr(engine, name)(Sequence(seed, stream, step, first), n, *ARGUMENTS[name])
            for engine in (cpu, reference)
        )
        assert (actual.tobytes(), actual.shape, actual.dtype) == (expected.tobytes(), expected.shape, expected.dtype)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_inside_a_capture_they_would_be_constants(use_threads, name):
    use_threads(1)

    def f(x):
        getattr(cpu, name)(Sequence(0, 1), len(x), *ARGUMENTS[name])
        return x

    with pytest.raises(TypeError, match=f"^{name}: expected a call outside of a capture"):
        cpu.Captured(f, after=1)(np.ones(3, np.float32))
