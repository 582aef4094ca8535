"""The mean squared error on the CUDA engine."""

import numpy as np
import pytest
from emulator.agreement import bound

from refdiff.engines import reference
from refdiff.engines.cuda import host
from refdiff.engines.cuda import loss as losses
from refdiff.testing.measures import relative_error


# 2 blocks and less than a pack; one block; the rest of a pack alone.
@pytest.mark.parametrize("shape", [(3, 1373), (2, 5, 7, 3), (1,), ()])
def test_mean_squared_error(context, dtype, shape):
    rng = np.random.default_rng(len(shape))
    x, target = (context.array(rng.standard_normal(shape), dtype) for _ in range(2))
    loss, saved = losses.mean_squared_error(x, target)
    wanted, wanted_saved = reference.mean_squared_error(*(host(a).astype(np.float64) for a in (x, target)))
    assert (loss.shape, loss.dtype) == ((), "float32")
    assert relative_error(host(loss), wanted) <= bound("float32", x.size)
    assert host(losses.mean_squared_error(x, target)[0]).tobytes() == host(loss).tobytes()

    for dloss, given in ((1.0, 1.0), (0.3, 0.3), (-2.5, context.array(-2.5))):
        dx = losses.mean_squared_error_backward(given, saved)
        assert dx.dtype == dtype
        assert relative_error(host(dx), reference.mean_squared_error_backward(dloss, wanted_saved)) <= bound(dtype)


def test_more_packs_than_threads(context, monkeypatch, dtype):
    monkeypatch.setattr(losses, "FILL_BLOCKS", 2)
    x, target = (np.random.default_rng(seed).standard_normal(9001) for seed in (3, 4))
    x, target = context.array(x, dtype), context.array(target, dtype)
    wanted, _ = reference.mean_squared_error(*(host(a).astype(np.float64) for a in (x, target)))
    assert relative_error(host(losses.mean_squared_error(x, target)[0]), wanted) <= bound("float32", 9001)
