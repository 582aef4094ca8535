"""refdiff's CUDA engine as a peer: python -m benchmarks.peers.refdiff_cuda gpu|emulator

An operation is timed as a graph between two events, see refdiff/benchmark/device.py; training steps by the clock, each from
its batch on the host to its result on the host, which is waited for a step late; a sampling loop from noise to samples on
the device, by the clock too.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from typing import Any

import numpy as np

from refdiff import models
from refdiff.benchmark import serve
from refdiff.benchmark.cases import conditions, config_of, draw, network, operands, weights
from refdiff.benchmark.counting import operations_of
from refdiff.benchmark.device import Stopwatch, captured
from refdiff.benchmark.host import named
from refdiff.benchmark.machine import versions
from refdiff.config import Config
from refdiff.engines import cuda
from refdiff.engines.cuda.product import TILES, chosen_by
from refdiff.engines.cuda.runtime.arena import Arena
from refdiff.engines.cuda.runtime.device import Device, is_lost
from refdiff.models import flatten
from refdiff.sampling.cuda import CUDASampler, on_device
from refdiff.training import State, trained
from refdiff.training.trainers.cuda import CUDATrainer


def state_of(case: dict[str, Any], config: Config) -> State:
    """Before the first step, with the case's weights."""
    return State.first(config, {"denoiser": weights(config.model, case["seed"])})


def open_device(kind: str) -> Device:
    """gpu: the first one; emulator: that of tests/, for a run where there is none."""
    if kind == "emulator":
        from emulator import Emulator  # type: ignore[import-not-found]

        return Emulator()
    from refdiff.engines.cuda.runtime.cupy_device import CupyDevice

    return CupyDevice()


class CudaPeer:
    def __init__(self, kind: str) -> None:
        self.device = open_device(kind)
        self.watch = Stopwatch(self.device)
        self.timer: Any = None
        self.arena: Arena | None = None

    def about(self) -> dict[str, Any]:
        return {"device": self.device.name, "architecture": self.device.architecture, **versions()}

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        self.timer = None
        if self.arena is not None:
            self.arena.close()
        self.arena = None
        outputs = getattr(self, f"_{case['kind']}")(case)
        self.device.synchronise()
        return outputs

    def time(self, repeats: int) -> list[float]:
        return self.timer(repeats)

    def _context(self) -> cuda.Context:
        self.arena = Arena(self.device)
        return cuda.Context(self.device, self.arena)

    def _operation(self, case: dict[str, Any]) -> dict[str, Any]:
        inputs, parameters, options = operands(case)
        context, dtype = self._context(), case["dtype"]
        name, backward, copies = case["operation"], case["direction"] == "backward", case.get("copies", 1)
        gradient = cache(lambda shape: draw(shape, case["seed"] + 50))

        def given(a: np.ndarray, dtype: str) -> Any:
            """Sent as it was drawn and rounded on the device, which is faster than here."""
            return cuda.cast(cuda.array(a, "float32"), dtype)

        def one() -> tuple[Any, list[Any], dict[str, Any], tuple[int, ...]]:
            """On operands of its own: what is to be timed, what it reads, what it gives, the shape of y."""
            x = [given(a, dtype) for a in inputs]
            p = {k: given(a, dtype if a.ndim > 1 else "float32") for k, a in parameters.items()}
            run = lambda: getattr(cuda, name)(*x, **p, **options)  # noqa: E731
            y = getattr(cuda, name)(*x, **p, **options)
            y, saved = y if isinstance(y, tuple) else (y, None)
            every = [*x, *p.values()]
            if not backward:
                return run, every, {"y": y}, y.shape
            dy = given(gradient(y.shape), dtype)
            operation = getattr(cuda, f"{name}_backward")
            # A norm's backward reads x and dy, a product's the weight too; an addition's neither.
            needed = every if saved is not None and name not in ("broadcast_add", "concat") else []
            read = [dy, *(a for a in needed if a is not p.get("bias"))]
            return (lambda: operation(dy, saved)), read, named(operation(dy, saved)), y.shape

        with cuda.use(context):
            run, read, results, shape = one()
            outputs = {k: cuda.host(a) for k, a in results.items()}
            # What lies where an input lay is only passed on.
            written = [a for a in results.values() if not any(a.buffer is b.buffer for b in read)]
            moved = sum(a.nbytes for a in (*read, *written))
            del results, written
            runs = [run, *(one()[0] for _ in range(copies - 1))]
        replay, launches = captured(context, runs)
        self.timer = lambda repeats: self.watch.seconds(replay, repeats, copies)
        found = {"bytes": moved, "operations": operations_of(case, shape), "launches": launches // copies}
        return {**outputs, "": found}

    def _tile(self, case: dict[str, Any]) -> dict[str, Any]:
        """One kernel of the matrix products with the tile that the case names, see benchmarks/tiles.py."""
        from benchmarks import tiles

        context = self._context()
        tile = next(t for t in TILES[case["dtype"]] if [t.m, t.n] == case["tile"])
        with cuda.use(context), chosen_by(lambda *_: tile, case["parts"]):
            y, replay, copies = tiles.timed(context, case)
        self.timer = lambda repeats: [s / copies for s in self.watch.seconds(replay, repeats)]
        return {"y": y, "": {"copies": copies}}

    def _ceilings(self, case: dict[str, Any]) -> dict[str, Any]:
        """As PyTorch's peer measures them, through CuPy, which has no bfloat16: float16 stands for it. On an emulator, of
        the host."""
        n, size, cupy = case["size"], case["bytes"], self.watch.cupy
        found = {}
        if cupy is None:
            a, b = np.ones(size, np.int8), np.ones(size, np.int8)
            runs = {"copy_bytes_per_second": (2 * size, lambda: np.copyto(b, a))}
            x = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
            runs |= {f"{dtype}_per_second": (2 * n**3, lambda: x @ x) for dtype in ("float32", "bfloat16")}
        else:
            a, b = self.device.reserve(size), self.device.reserve(size)
            stream, runtime = self.watch.stream, cupy.cuda.runtime
            kind = runtime.memcpyDeviceToDevice
            runs = {"copy_bytes_per_second": (2 * size, lambda: runtime.memcpyAsync(b, a, size, kind, stream.ptr))}

            def product(x: Any) -> Any:
                def run() -> None:
                    with stream:
                        cupy.matmul(x, x)

                return run

            for name, dtype in (("float32", cupy.float32), ("bfloat16", cupy.float16)):
                x = cupy.random.standard_normal((n, n), dtype=cupy.float32).astype(dtype)
                runs[f"{name}_per_second"] = 2 * n**3, product(x)
            cupy.cuda.Device().synchronize()
        for name, (amount, run) in runs.items():
            self.watch.seconds(run, 3)
            found[name] = amount / float(np.median(self.watch.seconds(run, 10)))
        return {"": found}

    def _forward(self, case: dict[str, Any]) -> dict[str, Any]:
        config, context = network(case["model"]), self._context()
        with cuda.use(context):
            net = on_device(models.Network(config, weights(config, case["seed"])), case["dtype"])
            x = cuda.array(draw((case["batch"], *config.shape), case["seed"]), case["dtype"])
            t = cuda.array(np.arange(case["batch"]) * 37 % 1000 + 1, "int32")
            given = {
                name: cuda.array(a, case["dtype"] if a.dtype == np.float32 else "int32")
                for name, a in conditions(config, case["batch"], case["seed"]).items()
            }
            run = lambda: models.forward(cuda, net, {"x": x, "t": t} | given)[0]  # noqa: E731
            y = cuda.host(run())
        replay, launches = captured(context, [run])
        self.timer = lambda repeats: self._clock(replay, repeats, case.get("inner", 1))
        return {"y": y, "": self._memory(launches)}

    def _train(self, case: dict[str, Any]) -> dict[str, Any]:
        config = config_of(case, "cuda")
        worker = CUDATrainer(config, state_of(case, config), self.device)
        self.arena = worker.arena
        data = {"x": draw((case["batch"], *config.model.shape), case["seed"], 0.5)}
        data |= conditions(config.model, case["batch"], case["seed"])
        step = worker.step(data)
        assert step is not None
        leaves = flatten(worker.state().trees["p"]["denoiser"])
        outputs = {"loss": step.loss, "gradient_norm": step.gradient_norm,
                   "p": np.concatenate([np.ravel(leaves[name]) for name in sorted(leaves)])}  # fmt: skip
        worker.step(data)  # which is captured
        graph = worker.captured.graph
        self.timer = lambda repeats: self._clock(lambda: worker.step(data, wait=False), repeats, case.get("inner", 1))
        return {**outputs, "": self._memory(graph.launches if graph else 0)}

    def _sample(self, case: dict[str, Any]) -> dict[str, Any]:
        config, index = config_of(case, "cuda"), np.arange(case["batch"])
        sampler = CUDASampler(trained(config, state_of(case, config)), self.device)
        given = conditions(config.model, case["batch"], case["seed"])
        *_, (_, x) = sampler(index, case["seed"], given, every=False)
        loop, context = sampler.captured, self._context()
        state = loop.state(context, index, case["seed"])
        zero = self.device.pinned(4).view(np.int32)
        first = self.device.pinned(4 * len(index)).view(np.int32)
        zero[:], first[:] = 0, loop.tables.timesteps[0]
        with cuda.use(context):
            told = {name: cuda.array(a, "float32" if a.dtype == np.float32 else "int32") for name, a in given.items()}
        replay, launches = captured(context, [lambda: loop.body(state, told)])

        def run() -> None:
            self.device.send(state.step.pointer, zero)
            self.device.send(state.t.pointer, first)
            for _ in range(len(loop.tables.timesteps)):
                replay()

        self.timer = lambda repeats: self._clock(run, repeats, case.get("inner", 1))
        return {"x": x, "": self._memory(launches)}

    def _clock(self, run: Any, repeats: int, inner: int) -> list[float]:
        seconds = []
        for _ in range(repeats):
            self.device.synchronise()
            start = time.perf_counter()
            for _ in range(inner):
                run()
            self.device.synchronise()
            seconds.append((time.perf_counter() - start) / inner)
        return seconds

    def _memory(self, launches: int) -> dict[str, Any]:
        return {"device_memory": self.arena.peak if self.arena else 0, "launches": launches}


if __name__ == "__main__":
    serve(CudaPeer(sys.argv[1]), fatal=is_lost)
