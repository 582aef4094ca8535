"""The CUDA engine on the emulator. Threads run in an order drawn from a seed, each array has unmapped pages around it."""

import shutil

import pytest

emulated = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request):
    return request.param


@pytest.fixture(params=[0, 1], ids=["seed0", "seed1"])
def context(request):
    """Fresh arrays hold NaN; blocks run forwards (seed 0) or backwards (seed 1)."""
    if shutil.which("g++") is None:
        pytest.skip("the emulator needs g++")
    from emulator import Emulator

    from refdiff.engines.cuda.context import Context, use
    from refdiff.engines.cuda.memory import Separate

    device = Emulator(request.param)
    with use(Context(device, Separate(device))) as context:
        yield context
