"""The GPU through CuPy, on a stand-in for CuPy: what it is asked for, and what is said where something is missing.

That a real CuPy does with these calls what its documentation says, only a GPU can show.
"""

import ctypes
import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from refdiff.engines.cuda import host
from refdiff.engines.cuda.activation import silu
from refdiff.engines.cuda.runtime import context as contexts
from refdiff.engines.cuda.runtime import nvrtc
from refdiff.engines.cuda.runtime.context import Array, Context
from refdiff.engines.cuda.runtime.cupy_device import CupyDevice
from refdiff.engines.cuda.runtime.device import DeviceError, DeviceLost, Kernel


class CudaError(RuntimeError):
    """As CuPy's: the number in `status`."""

    def __init__(self, status):
        super().__init__(f"cudaError {status}")
        self.status = status


class DriverError(CudaError):
    """The driver's."""


class Stream:
    """One whose graphs are lists of launches."""

    def __init__(self, non_blocking=False):
        assert non_blocking
        self.ptr, self.recorded, self.waits = 77, None, 0

    def synchronize(self):
        assert self.recorded is None
        self.waits += 1

    def begin_capture(self, mode):
        assert mode == 2
        self.recorded = []

    def end_capture(self):
        recorded, self.recorded = self.recorded, None
        return SimpleNamespace(launch=lambda stream: stream.ran.append(recorded), recorded=recorded)


class Event:
    """One that notes what it is asked."""

    def __init__(self, disable_timing=False):
        assert disable_timing
        self.asked = []

    def record(self, stream):
        self.asked.append(stream.ptr)
        stream.events.append(self)

    def synchronize(self):
        self.asked.append("wait")


class Cupy:
    """The stand-in; tests change its attributes. Memory is the host's."""

    def __init__(self):
        self.blocks, self.launched, self.loaded, self.attributes, self.devices_set = {}, [], [], [], []
        self.runtime = SimpleNamespace(
            CUDARuntimeError=CudaError, is_hip=False, memcpyHostToDevice=1, memcpyDeviceToHost=2, streamCaptureModeRelaxed=2,
            driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13020, getDeviceCount=lambda: 1,
            setDevice=self.devices_set.append, getDeviceProperties=lambda i: {"name": b"NVIDIA H100 80GB HBM3"},
            memGetInfo=lambda: (1 << 30, 80 << 30), malloc=self.malloc, free=lambda p: p and self.blocks.pop(p),
            memcpyAsync=self.copy,
        )  # fmt: skip
        self.driver = SimpleNamespace(
            CUDADriverError=DriverError, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
            CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT=9, moduleLoadData=self.load,
            moduleGetFunction=lambda module, name: 1000 * module + len(name),
            funcSetAttribute=lambda *a: self.attributes.append(a), launchKernel=self.launch,
        )  # fmt: skip
        self.capability, self.stream = "90", None
        device = lambda index: SimpleNamespace(compute_capability=self.capability)  # noqa: E731
        self.cuda = SimpleNamespace(runtime=self.runtime, driver=self.driver, Device=device, Stream=self.make_stream,
                                    Event=Event, alloc_pinned_memory=lambda n: bytearray(-(-n // 512) * 512))  # fmt: skip

    def make_stream(self, non_blocking):
        self.stream = Stream(non_blocking)
        self.stream.ran, self.stream.events = [], []
        return self.stream

    def malloc(self, nbytes):
        block = ctypes.create_string_buffer(nbytes + 512)
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def copy(self, to, source, nbytes, kind, stream):
        assert kind in (1, 2)
        assert stream == 77
        ctypes.memmove(to, source, nbytes)

    def load(self, cubin):
        self.loaded.append(cubin)
        return len(self.loaded)

    def launch(self, function, *rest):
        *sizes, stream, parameters, extra = rest
        assert (stream, extra) == (77, 0)
        self.launched.append((function, tuple(sizes), parameters))
        if self.stream.recorded is not None:
            self.stream.recorded.append(function)


@pytest.fixture
def cupy(monkeypatch):
    fake = Cupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    compiled = lambda source, defines, architecture, cache: nvrtc.Compiled(f"{source.name} {defines}".encode(), "")  # noqa: E731
    fake.compiler = SimpleNamespace(compile=compiled, path="libnvrtc.so.13")
    monkeypatch.setattr(nvrtc, "find", lambda newest: fake.compiler)
    return fake


def test_it_is_named_and_its_memory_is_read_and_written(cupy):
    device = CupyDevice()
    assert (device.name, device.architecture, device.free_bytes()) == ("NVIDIA H100 80GB HBM3", "sm_90a", 1 << 30)
    pointer = device.reserve(40)
    x, y = np.arange(10.0, dtype=np.float32), np.zeros(10, np.float32)
    device.write(pointer, x[::-1])
    device.read(pointer, y)
    np.testing.assert_array_equal(x[::-1], y)
    assert cupy.stream.waits == 2
    device.release(pointer)
    assert cupy.blocks == {}


def test_copies_that_nobody_waits_for(cupy):
    """From pinned memory, and back into it: the host waits for an event, and for nothing else."""
    device = CupyDevice()
    pointer, there, back = device.reserve(40), device.pinned(40), device.pinned(40)
    assert (there.shape, there.dtype, there.flags.writeable) == ((40,), np.uint8, True)
    there[:] = np.arange(40)
    device.send(pointer, there)
    wait = device.fetch(pointer, back)
    (event,) = cupy.stream.events
    assert (event.asked, cupy.stream.waits) == ([77], 0)
    wait()
    assert (event.asked, cupy.stream.waits) == ([77, "wait"], 0)
    np.testing.assert_array_equal(there, back)
    for refused in (lambda: device.send(pointer, there), lambda: device.fetch(pointer, back)):
        with pytest.raises(AssertionError):
            Context(device).capture(refused)


@pytest.mark.parametrize(
    ("capability", "architecture"), [("80", "sm_80"), ("89", "sm_89"), ("90", "sm_90a"), ("100", "sm_100")]
)
def test_the_architecture(cupy, capability, architecture):
    cupy.capability = capability
    assert CupyDevice().architecture == architecture


def test_a_launch(cupy):
    """The driver is given the addresses of the arguments' values, and each variant is compiled and loaded once."""
    values = []
    launch = cupy.driver.launchKernel

    def read_arguments(*given):
        launch(*given)
        x, y, n = ctypes.cast(given[-2], ctypes.POINTER(ctypes.c_void_p))[:3]
        values.append((ctypes.c_void_p.from_address(x).value, ctypes.c_void_p.from_address(y).value,
                       ctypes.c_int.from_address(n).value))  # fmt: skip

    cupy.driver.launchKernel = read_arguments
    context = Context(CupyDevice())
    x = context.array(np.ones((3, 1000), np.float32))
    outputs = [silu(x)[0], silu(x)[0], silu(context.array(np.ones(8), "bfloat16"))[0]]
    assert values[:2] == [(x.pointer, y.pointer, 3000) for y in outputs[:2]]
    assert values[2][2] == 8
    assert [sizes for _, sizes, _ in cupy.launched] == [(3, 1, 1, 256, 1, 1, 0)] * 2 + [(1, 1, 1, 256, 1, 1, 0)]
    assert cupy.loaded == [b"activation.cu ()", b"activation.cu (('BF16', 1),)"]


def test_much_shared_memory_is_asked_for_once(cupy):
    device = CupyDevice()
    device.launch(Kernel("activation.cu", "silu"), (1,), (32, 2), [], 0)
    assert cupy.attributes == []
    for shared in (48 << 10, 64 << 10, 64 << 10, 96 << 10, 50 << 10):
        device.launch(Kernel("activation.cu", "silu"), (1,), (32, 2), [], shared)
    assert [(a[1], a[2]) for a in cupy.attributes] == [(9, 100), (8, 64 << 10), (8, 96 << 10)]
    assert cupy.launched[-1][1] == (1, 1, 1, 32, 2, 1, 50 << 10)


def test_a_capture(cupy):
    context = Context(CupyDevice())
    x = context.array(np.ones(8))
    graph = context.capture(lambda: silu(silu(x)[0]))
    assert (graph.launches, len(cupy.launched)) == (2, 2)
    graph.replay()
    graph.replay()
    assert [len(recorded) for recorded in cupy.stream.ran] == [2, 2]
    for refused in (lambda: host(x), lambda: context.array([1.0]), context.device.synchronise):
        with pytest.raises(AssertionError):
            context.capture(refused)
    assert host(x).sum() == 8  # and after a capture that failed all goes on


def refused(match):
    with pytest.raises(DeviceError, match=match) as caught:
        CupyDevice()
    assert 'engine="cpu" goes on working' in str(caught.value)


def test_no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    refused(r'needs CuPy: pip install "\.\[cuda13\]" in a checkout of refdiff \(driver 580.* or cuda12 in its place')
    contexts.first_gpu.cache_clear()
    with pytest.raises(DeviceError, match="needs CuPy"):
        contexts.current()


def test_a_cupy_that_does_not_load(monkeypatch):
    def broken(name):
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    refused(r"does not load \(libcudart.so.12: .*uninstall every cupy package")


def fails(status, kind=CudaError):
    def call(*_):
        raise kind(status)

    return call


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"is_hip": True}, "CuPy is for AMD"),
        ({"driverGetVersion": lambda: 0}, "no NVIDIA driver is installed"),
        ({"driverGetVersion": lambda: 11080}, "driver is for CUDA 11.8: update it to 525 or newer"),
        ({"driverGetVersion": lambda: 12040}, r'CuPy is for CUDA 13, .* for 12.4: pip install "\.\[cuda12\]"'),
        ({"driverGetVersion": fails(35)}, "driver is too old"),
        ({"getDeviceCount": fails(35)}, r'driver is too old .*"\.\[cuda12\]"'),
        ({"getDeviceCount": fails(100)}, "no NVIDIA GPU is visible"),
        ({"getDeviceCount": lambda: 0}, "GPU 0 is not there: CUDA sees 0"),
    ],
)
def test_no_usable_gpu(cupy, changes, match):
    vars(cupy.runtime).update(changes)
    refused(match)


def test_a_gpu_that_is_too_old(cupy):
    cupy.capability = "75"
    refused(r"NVIDIA H100 80GB HBM3 has compute capability 7.5; the kernels need 8.0")


def test_the_compiler_is_one_that_the_driver_takes(cupy, monkeypatch):
    def missing(newest):
        raise DeviceError(f'NVRTC for {newest} is missing; engine="cpu" goes on working')

    monkeypatch.setattr(nvrtc, "find", missing)
    refused("NVRTC for 13 is missing")


def test_errors_while_it_works(cupy):
    device = CupyDevice()
    cupy.runtime.malloc = fails(2)
    with pytest.raises(DeviceError, match=r"not enough memory .*reserving 4096 bytes\): lower train.batch"):
        device.reserve(4096)
    kernel = Kernel("activation.cu", "silu")
    cupy.driver.moduleLoadData = fails(218, DriverError)
    with pytest.raises(
        DeviceError, match=r"loading activation.cu, compiled by .*libnvrtc.so.13, failed: cudaError 218"
    ):
        device.launch(kernel, (1,), (32,), [])
    cupy.driver.moduleLoadData = cupy.load
    cupy.driver.moduleGetFunction = fails(500, DriverError)
    with pytest.raises(DeviceError, match=r"looking for silu in activation.cu failed"):
        device.launch(kernel, (1,), (32,), [])
    cupy.driver.moduleGetFunction = lambda module, name: 5
    cupy.driver.launchKernel = fails(700, DriverError)
    with pytest.raises(DeviceError, match=r"silu, grid \(1,\), block \(32,\), 0 bytes shared failed: cudaError 700"):
        device.launch(kernel, (1,), (32,), [])

    def does_not_compile(*_):
        raise DeviceError("tensor_ops.cu does not compile")

    cupy.compiler.compile = does_not_compile
    with pytest.raises(DeviceError, match="does not compile"):
        device.launch(Kernel("tensor_ops.cu", "add"), (1,), (32,), [])


@pytest.mark.parametrize(("status", "lost"), [(700, True), (719, True), (716, True), (1, False), (701, False)])
def test_after_some_errors_the_process_must_end(cupy, status, lost):
    """An illegal address or a failed launch is told apart from a launch that was refused."""
    device = CupyDevice()
    cupy.stream.synchronize = fails(status)
    with pytest.raises(DeviceError, match=f"waiting for the GPU failed: cudaError {status}") as caught:
        device.synchronise()
    assert isinstance(caught.value, DeviceLost) is lost
    assert ("start it again" in str(caught.value)) is lost


def test_the_arena_says_how_much_is_missing(cupy):
    context = Context(CupyDevice())
    with pytest.raises(DeviceError, match=r"on NVIDIA H100 80GB HBM3: 0 MiB .*, 2048 MiB more .*, 1024 MiB are free"):
        context.empty((1 << 29,), "float32")
    assert isinstance(context.empty((3,)), Array)


def test_another_thread(cupy):
    """CUDA's current GPU is a thread's: it is set before the first call there."""
    from concurrent.futures import ThreadPoolExecutor

    device = CupyDevice(0)
    cupy.devices_set.clear()
    device.free_bytes()
    assert cupy.devices_set == []
    with ThreadPoolExecutor(1) as pool:
        pool.submit(device.free_bytes).result()
        pool.submit(device.free_bytes).result()
    assert cupy.devices_set == [0]
