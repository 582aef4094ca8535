"""Each kernel compiles with the oldest NVRTC too, with nothing spilled. test_compile.py has the newest. Needs no GPU."""

import os
import sys
from functools import cache

import pytest

from kernels import catalogue
from kernels.test_compile import check
from kernels.variants import COMMON, DTYPES, RARE
from refdiff.engines.cuda.runtime import nvrtc
from refdiff.engines.cuda.runtime.device import DeviceError

ARCHITECTURES = ("sm_80", "sm_90", "sm_90a")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or "REFDIFF_SANITIZE" in os.environ,
    reason="NVRTC's wheels are for Linux, without sanitizers",
)


@cache
def installed():
    """Every NVRTC of this machine that may be used, by version."""
    found = {}
    for path in nvrtc.candidates():
        try:
            one = nvrtc.Nvrtc(path)
        except (OSError, AttributeError, DeviceError):
            continue
        found.setdefault(one.version, one)
    return found


def oldest():
    """An error, not a test that is left out, where it is not there: `make check` installs it."""
    assert nvrtc.OLDEST in installed(), (
        f"expected NVRTC {nvrtc.OLDEST}, got {sorted(installed())}: pip install 'refdiff[check]'"
    )
    return installed()[nvrtc.OLDEST]


@pytest.mark.slow
def test_the_oldest_and_the_newest_are_there():
    assert oldest().version == nvrtc.OLDEST
    assert nvrtc.find().version == max(installed()) >= (13, 0), "what test_compile.py compiles with"


@pytest.mark.slow
@pytest.mark.parametrize("source", catalogue.SOURCES)
def test_nothing_is_spilled_by_the_oldest(source):
    for defines in [*COMMON.get(source, DTYPES), *RARE.get(source, [])]:
        for architecture in ARCHITECTURES:
            check(source, defines, architecture, oldest())
