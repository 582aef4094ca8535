"""The CUDA engine on the emulator. Threads run in an order drawn from a seed, each array has unmapped pages around it.

With REFDIFF_DEVICE=gpu the same tests run on the first GPU, each array in memory of its own (`make gpu` does that).
"""

import os
import shutil
from functools import cache

import pytest

from refdiff.engines.cuda.runtime.context import Context, use
from refdiff.engines.cuda.runtime.memory import PerArrayAllocator

emulated = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request):
    return request.param


@pytest.fixture(params=[0, 1], ids=["seed0", "seed1"])
def context(request):
    """Fresh arrays hold NaN; blocks run forwards (seed 0) or backwards (seed 1)."""
    with use(Context(device := open_device(request.param), PerArrayAllocator(device))) as context:
        yield context
        device.synchronise()


def open_device(seed):
    if os.environ.get("REFDIFF_DEVICE") == "gpu":
        if seed:
            pytest.skip("a GPU chooses its own order")
        device = gpu()
        device.launches.clear()
        return device
    if shutil.which("g++") is None:
        pytest.skip("the emulator needs g++")
    from emulator import Emulator

    return Emulator(seed)


@cache
def gpu():
    """The first GPU, which notes what it runs as the emulator does."""
    from refdiff.engines.cuda.runtime.cupy_device import CupyDevice

    class Noting(CupyDevice):
        def __init__(self):
            super().__init__()
            self.launches = []

        def launch(self, kernel, *arguments):
            if not self.is_capturing:
                self.launches.append(kernel)
            super().launch(kernel, *arguments)

    return Noting()
