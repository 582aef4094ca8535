"""The device that is a GPU, through CuPy: its memory, copies, streams and graphs, and the driver's own launch call.

CuPy's arrays, pool and compiler are not used: pointers are numbers, and kernels come from nvrtc.py as cubins.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ....errors import extra, option
from . import nvrtc
from .device import DeviceError, DeviceLost, Graph, Kernel
from .sources import KERNELS

__all__ = ["CupyDevice"]

OLDEST = 80  # compute capability 8.0: bfloat16, cp.async
_SHARED = 48 << 10  # bytes of shared memory a block may have without asking
_NO_MEMORY, _NO_DEVICE, _OLD_DRIVER = 2, 100, 35  # cudaError_t; the first is CUresult's too
# cudaError_t and CUresult after which CUDA refuses all further work of the process: memory (214, 220), an illegal address, a
# launch that ran too long, a context that is gone, assert, stack, instruction, alignment, address space, counter, launch
# failure, a device outside CUDA, unknown.
_LOST = frozenset({214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 911, 999})
_ALL = 100  # percent of what a multiprocessor has for shared memory and level-1 cache together


class CupyDevice:
    """index: of the GPU, as CUDA_VISIBLE_DEVICES leaves it. DeviceError, which says what to do, where there is none."""

    def __init__(self, index: int = 0) -> None:
        self.cupy = _import()
        self.runtime, self.driver = self.cupy.cuda.runtime, self.cupy.cuda.driver
        self.index = index
        cuda = _check_driver(self.runtime)
        with self._explained("looking for a GPU"):
            count = self.runtime.getDeviceCount()
        if index >= count:
            raise DeviceError(f"GPU {index} is not there: CUDA sees {count}; {_go_on()}")
        with self._explained("opening the GPU"):
            self.runtime.setDevice(index)
            name = self.runtime.getDeviceProperties(index)["name"]
            capability = str(self.cupy.cuda.Device(index).compute_capability)
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        if int(capability) < OLDEST:
            raise DeviceError(
                f"{self.name} has compute capability {capability[:-1]}.{capability[-1]}; the kernels need 8.0 (Ampere, "
                f"2020) or more; {_go_on()}"
            )
        self.architecture = f"sm_{capability}" + ("a" if capability == "90" else "")  # wgmma is there on 9.0 alone
        self.nvrtc = nvrtc.find(cuda)
        with self._explained("opening the GPU"):
            self.runtime.free(0)  # makes the context that modules are loaded into
            self.stream = self.cupy.cuda.Stream(non_blocking=True)  # the default one cannot be captured
        self.threads = threading.local()
        self.threads.ready = True
        self.modules: dict[tuple[str, tuple[tuple[str, int], ...]], int] = {}
        self.functions: dict[Kernel, int] = {}
        self.allowed: dict[int, int] = {}  # function -> bytes of dynamic shared memory it may have
        self.captured: int | None = None  # launches since begin_capture

    @property
    def is_capturing(self) -> bool:
        return self.captured is not None

    def free_bytes(self) -> int:
        with self._explained("asking for the free memory"):
            return int(self.runtime.memGetInfo()[0])

    def reserve(self, nbytes: int) -> int:
        assert self.captured is None, "memory cannot be reserved during a capture"
        with self._explained(f"reserving {nbytes} bytes"):
            return int(self.runtime.malloc(max(nbytes, 1)))

    def release(self, pointer: int) -> None:
        with self._explained("releasing memory"):
            self.runtime.free(pointer)

    def write(self, pointer: int, array: np.ndarray) -> None:
        assert self.captured is None, "a copy from the host cannot be captured"
        array = np.ascontiguousarray(array)
        self._copy(pointer, array.ctypes.data, array.nbytes, self.runtime.memcpyHostToDevice)

    def read(self, pointer: int, array: np.ndarray) -> None:
        assert self.captured is None, "a copy to the host cannot be captured"
        assert array.flags.c_contiguous
        self._copy(array.ctypes.data, pointer, array.nbytes, self.runtime.memcpyDeviceToHost)

    def pinned(self, nbytes: int) -> np.ndarray:
        with self._explained(f"pinning {nbytes} bytes of the host"):
            memory = self.cupy.cuda.alloc_pinned_memory(max(nbytes, 1))
        return np.frombuffer(memory, np.uint8, nbytes)  # which keeps it

    def send(self, pointer: int, array: np.ndarray) -> None:
        assert self.captured is None, "a copy from the host cannot be captured"
        self.queue_copy(pointer, array.ctypes.data, array.nbytes, self.runtime.memcpyHostToDevice)

    def fetch(self, pointer: int, array: np.ndarray) -> Callable[[], None]:
        assert self.captured is None, "a copy to the host cannot be captured"
        self.queue_copy(array.ctypes.data, pointer, array.nbytes, self.runtime.memcpyDeviceToHost)
        with self._explained("recording an event"):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(self.stream)

        def wait() -> None:
            with self._explained("waiting for a copy"):
                event.synchronize()

        return wait

    def launch(
        self, kernel: Kernel, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any], shared: int = 0
    ) -> None:
        function = self.functions.get(kernel)
        if function is None:
            function = self.functions[kernel] = self.load(kernel)
        addresses = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        with self._explained(f"{kernel.source}, {kernel.name}, grid {grid}, block {block}, {shared} bytes shared"):
            if shared and function not in self.allowed:
                # How much of a multiprocessor's memory is shared and how much caches is the driver's choice; a kernel that
                # stages its operands in shared memory wants as many blocks there as fit.
                carveout = self.driver.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
                self.driver.funcSetAttribute(function, carveout, _ALL)
                self.allowed[function] = _SHARED
            if shared > self.allowed.get(function, _SHARED):
                which = self.driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self.driver.funcSetAttribute(function, which, shared)
                self.allowed[function] = shared
            # The values are copied out of `arguments` before this returns.
            self.driver.launchKernel(
                function,
                *(*grid, 1, 1)[:3],
                *(*block, 1, 1)[:3],
                shared,
                self.stream.ptr,
                ctypes.addressof(addresses),
                0,
            )
        if self.captured is not None:
            self.captured += 1

    def synchronise(self) -> None:
        assert self.captured is None, "a capture cannot wait"
        with self._explained("waiting for the GPU"):
            self.stream.synchronize()

    def begin_capture(self) -> None:
        assert self.captured is None, "captures do not nest"
        with self._explained("beginning a capture"):
            # Relaxed: a kernel that is launched for the first time may be loaded.
            self.stream.begin_capture(self.runtime.streamCaptureModeRelaxed)
        self.captured = 0

    def end_capture(self) -> Graph:
        assert self.captured is not None
        launches, self.captured = self.captured, None
        with self._explained("ending a capture"):
            graph = self.stream.end_capture()

        def replay() -> None:
            with self._explained("replaying a graph"):
                graph.launch(self.stream)

        return Graph(replay, launches)

    def _copy(self, to: int, source: int, nbytes: int, kind: int) -> None:
        self.queue_copy(to, source, nbytes, kind)
        with self._explained(f"copying {nbytes} bytes"):
            self.stream.synchronize()  # the host's memory may be gone or read as soon as this returns

    def queue_copy(self, to: int, source: int, nbytes: int, kind: int) -> None:
        with self._explained(f"copying {nbytes} bytes"):
            self.runtime.memcpyAsync(to, source, nbytes, kind, self.stream.ptr)

    def load(self, kernel: Kernel) -> int:
        key = (kernel.source, kernel.defines)
        if key not in self.modules:
            path = KERNELS / kernel.source
            compiled = self.nvrtc.compile(path, kernel.defines, self.architecture, nvrtc.cache_folder())
            with self._explained(f"loading {kernel.source}, compiled by NVRTC of {self.nvrtc.path},"):
                self.modules[key] = self.driver.moduleLoadData(compiled.cubin)
        with self._explained(f"looking for {kernel.name} in {kernel.source}"):
            return int(self.driver.moduleGetFunction(self.modules[key], kernel.name))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """CUDA's errors as DeviceError; makes the GPU the one of this thread."""
        threads = getattr(self, "threads", None)
        errors = (self.runtime.CUDARuntimeError, self.driver.CUDADriverError)
        try:
            if threads is not None and not getattr(threads, "ready", False):
                self.runtime.setDevice(self.index)
                threads.ready = True
            yield
        except errors as error:
            raise _explain(what, error) from error


def _explain(what: str, error: Any) -> DeviceError:
    status = getattr(error, "status", None)
    if status == _NO_MEMORY:
        return DeviceError(
            f"not enough memory on the GPU ({what}): lower train.batch or take {option('dtype', 'bfloat16')} ({error})"
        )
    if status == _NO_DEVICE:
        return DeviceError(f"no NVIDIA GPU is visible (CUDA_VISIBLE_DEVICES, or a container without one); {_go_on()}")
    if status == _OLD_DRIVER:
        return DeviceError(f"the NVIDIA driver is too old for this CuPy: {_UPDATE}; {_go_on()}")
    if status in _LOST:
        return DeviceLost(f"{what} failed: {error}; the GPU does nothing more for this process: start it again")
    return DeviceError(f"{what} failed: {error}")


_UPDATE = f"{extra('cuda12')} (driver 525 or newer), or update the driver (580 or newer for the extra cuda13)"


def _go_on() -> str:
    return f"{option('engine', 'cpu')} goes on working"


def _import() -> Any:
    """CuPy; DeviceError where it is missing or broken."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise DeviceError(
                f"the CUDA engine needs CuPy: {extra('cuda13')} (driver 580 or newer; nvidia-smi tells it) or "
                f"cuda12 in its place (525 or newer); {_go_on()}"
            ) from error
        raise DeviceError(
            f"CuPy is installed and does not load ({error}): uninstall every cupy package, then {extra('cuda13')} or "
            f"cuda12 in its place; {_go_on()}"
        ) from error
    if getattr(cupy.cuda.runtime, "is_hip", False):
        raise DeviceError(f"this CuPy is for AMD: pip uninstall it, then {extra('cuda13')}; {_go_on()}")
    return cupy


def _check_driver(runtime: Any) -> int:
    """The CUDA that the driver is for, 13 say; DeviceError where there is none or CuPy is for a later one."""
    try:
        driver = int(runtime.driverGetVersion())
    except runtime.CUDARuntimeError as error:
        raise _explain("asking for the driver's version", error) from error
    built = int(runtime.runtimeGetVersion())
    if driver == 0:
        raise DeviceError(f"no NVIDIA driver is installed, so no GPU can be used; {_go_on()}")
    if driver // 1000 < 12:
        raise DeviceError(
            f"the NVIDIA driver is for CUDA {driver // 1000}.{driver % 1000 // 10}: update it to 525 or newer; {_go_on()}"
        )
    if driver // 1000 < built // 1000:
        raise DeviceError(
            f"CuPy is for CUDA {built // 1000}, the NVIDIA driver for {driver // 1000}.{driver % 1000 // 10}: {_UPDATE}; "
            f"{_go_on()}"
        )
    return driver // 1000
