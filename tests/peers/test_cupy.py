"""Every call of CupyDevice to the real CuPy, where there is no driver: what comes back must be CUDA's own error.

A name that CuPy does not have would be an AttributeError, arguments that it does not take a TypeError. Whether the calls do
what they should, only a GPU can show.
"""

import ast
import ctypes
import inspect
import re
import threading
import warnings
from types import SimpleNamespace

import cupy
import numpy as np
import pytest

from refdiff.engines.cuda.runtime import cupy_device, nvrtc
from refdiff.engines.cuda.runtime.cupy_device import CupyDevice
from refdiff.engines.cuda.runtime.device import DeviceError, Kernel

if cupy.cuda.runtime.driverGetVersion():
    pytest.skip("there is a driver: the tests beside this one make the calls", allow_module_level=True)

CUDAS = r"CUDARuntimeError: (cudaErrorInsufficientDriver|cudaErrorNoDevice)|failed to load libcuda"
KERNEL = Kernel("activation.cu", "silu")
HOST = np.zeros(4, np.uint8)


def half_made(kind):
    """An event or a graph, which only CUDA could make, without a handle."""
    made = kind.__new__(kind)
    if kind is cupy.cuda.Event:
        made.ptr = 0
    return made


def stream():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # CuPy 14 has another way, which CuPy 13 has not
        return cupy.cuda.ExternalStream(1 << 20)


@pytest.fixture
def device():
    """One past its constructor, as far as that goes: stream, module and function are numbers that CUDA does not know."""
    device = object.__new__(CupyDevice)
    device.cupy, device.runtime, device.driver = cupy, cupy.cuda.runtime, cupy.cuda.driver
    device.stream, device.index, device.captured = stream(), 0, None
    device.threads, device.modules, device.functions, device.allowed = threading.local(), {}, {}, {}
    device.threads.ready, device.architecture = True, "sm_90a"
    device.nvrtc = SimpleNamespace(compile=lambda *_: nvrtc.Compiled(b"not a cubin", ""), path="libnvrtc.so")
    return device


def launch(device, shared, **allowed):
    """A kernel that is loaded, as far as the device knows."""
    device.functions[KERNEL] = 1 << 20
    if "allowed" in allowed:
        device.allowed[1 << 20] = allowed["allowed"]
    device.launch(KERNEL, (1,), (32,), [ctypes.c_int(1)], shared)


def function(device):
    device.modules[KERNEL.source, ()] = 1 << 20
    device.load(KERNEL)


def end(device):
    device.captured = 0
    device.end_capture()


def replay(device):
    device.captured = 0
    graph = half_made(cupy.cuda.Graph)
    device.stream = SimpleNamespace(end_capture=lambda: graph, ptr=device.stream.ptr)
    device.end_capture().replay()


def waiting(device):
    """For an event that there is, of a copy that was queued."""
    event = half_made(cupy.cuda.Event)
    recorded = SimpleNamespace(record=lambda stream: None, synchronize=event.synchronize)
    device.queue_copy = lambda *_: None
    device.cupy = SimpleNamespace(cuda=SimpleNamespace(Event=lambda disable_timing: recorded))
    device.fetch(1 << 20, HOST)()


def recording(device):
    device.queue_copy = lambda *_: None
    device.cupy = SimpleNamespace(cuda=SimpleNamespace(Event=lambda disable_timing: half_made(cupy.cuda.Event)))
    device.fetch(1 << 20, HOST)


def making(device):
    device.queue_copy = lambda *_: None
    device.fetch(1 << 20, HOST)


def another_thread(device):
    device.threads.ready = False
    device.free_bytes()


CALLS = {
    "getDeviceCount": lambda d: d.runtime.getDeviceCount(),
    "getDeviceProperties": lambda d: d.runtime.getDeviceProperties(0),
    "compute_capability": lambda d: cupy.cuda.Device(0).compute_capability,
    "free(0)": lambda d: d.runtime.free(0),
    "Stream": lambda d: cupy.cuda.Stream(non_blocking=True),
    "setDevice": another_thread,
    "memGetInfo": lambda d: d.free_bytes(),
    "malloc": lambda d: d.reserve(64),
    "free": lambda d: d.release(1 << 20),
    "memcpyAsync, to": lambda d: d.write(1 << 20, HOST),
    "memcpyAsync, from": lambda d: d.read(1 << 20, HOST.copy()),
    "alloc_pinned_memory": lambda d: d.pinned(64),
    "memcpyAsync, pinned": lambda d: d.send(1 << 20, HOST),
    "memcpyAsync, back": lambda d: d.fetch(1 << 20, HOST.copy()),
    "Event": making,
    "Event.record": recording,
    "Event.synchronize": waiting,
    "Event with times": lambda d: cupy.cuda.Event(),
    "get_elapsed_time": lambda d: cupy.cuda.get_elapsed_time(*(half_made(cupy.cuda.Event) for _ in range(2))),
    "Stream.synchronize": lambda d: d.synchronise(),
    "begin_capture": lambda d: d.begin_capture(),
    "end_capture": end,
    "Graph.launch": replay,
    "moduleLoadData": lambda d: d.load(KERNEL),
    "moduleGetFunction": function,
    "funcSetAttribute, carve-out": lambda d: launch(d, 64),
    "funcSetAttribute, shared": lambda d: launch(d, 96 << 10, allowed=48 << 10),
    "launchKernel": lambda d: launch(d, 0),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a stream that is half made
@pytest.mark.parametrize("name", CALLS)
def test_cuda_answers_itself(device, name):
    words = ""
    try:
        CALLS[name](device)
    except DeviceError as error:
        words = f"{type(error.__cause__).__name__}: {error.__cause__}"
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
    assert re.search(CUDAS, words), words or "it succeeded"


def test_without_a_driver_it_is_said():
    with pytest.raises(
        DeviceError, match=r"no NVIDIA driver is installed, so no GPU can be used; engine=.cpu. goes on"
    ):
        CupyDevice()


def test_every_name_is_there():
    """Whatever the module reads of CuPy's runtime and driver, and of what it makes, CuPy has."""
    tree = ast.parse(inspect.getsource(cupy_device))
    owners = {"runtime": cupy.cuda.runtime, "driver": cupy.cuda.driver, "cuda": cupy.cuda,
              "stream": stream(), "event": cupy.cuda.Event, "graph": cupy.cuda.Graph}  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in owners:
                found.add((owner, node.attr))
    missing = [f"{owner}.{name}" for owner, name in sorted(found) if not hasattr(owners[owner], name)]
    assert not missing
    assert {("driver", "launchKernel"), ("graph", "launch"), ("event", "synchronize"), ("runtime", "malloc")} <= found
