"""SiLU and GELU on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import check_agreement


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 7, 9, 3), (4, 513)])
def test_activation(context, dtype, name, shape):
    x = 3 * np.random.default_rng(len(shape)).standard_normal(shape)
    check_agreement(context, name, (x,), dtype=dtype)


def test_nothing_overflows(context, dtype):
    x = np.array([-1e30, -100.0, -20.0, 0.0, 20.0, 100.0, 1e30])
    check_agreement(context, "silu", (x,), dtype=dtype)
