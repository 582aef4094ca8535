"""PyTorch as a peer: python -m benchmarks.peers.torch_peer --device cpu|cuda --variant eager|channels-last|compile

bfloat16 is autocast for networks, with float32 weights, and bfloat16 tensors for single operations. TF32 is off: float32
means float32. On a GPU all is timed as ours is: an operation as a graph of several, each on tensors of its own, between two
events, the level-2 cache flushed before it by reading; steps by the clock, the batch from pinned memory, loss and norm read
a step late. Adam is PyTorch's fused one.
"""

import argparse
import functools
import os
import time

import numpy as np
import torch

from benchmarks.peers import torch_operations
from benchmarks.peers.torch_operations import back, image
from benchmarks.peers.torch_unet import UNet, to_torch
from refdiff.benchmark import serve
from refdiff.benchmark.cases import conditions, config_of, draw, network, operands, weights
from refdiff.engines.reference import bernoulli
from refdiff.models import flatten
from refdiff.process import SPACINGS
from refdiff.random import Key, integers, normal

FLUSH = 256 << 20


class TorchPeer:
    def __init__(self, device, variant):
        self.device, self.variant, self.cuda = torch.device(device), variant, device == "cuda"
        self.last = variant != "eager"
        if threads := os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(int(threads))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        self.flush = torch.zeros(FLUSH // 4, device=device) if self.cuda else None
        self.run = lambda: None
        self.events, self.inner, self.copies, self.captured = False, 1, 1, True

    def about(self):
        found = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        if self.cuda:
            found |= {"cudnn": torch.backends.cudnn.version(), "cuda": torch.version.cuda,
                      "gpu": torch.cuda.get_device_name()}  # fmt: skip
        return found

    def prepare(self, case):
        self.run, self.events, self.inner, self.copies = None, False, case.get("inner", 1), 1
        self.captured = True
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        if case["kind"] == "ceilings":
            return {"": self._ceilings(case)}
        self.dtype = getattr(torch, case["dtype"])
        outputs = getattr(self, f"_{case['kind']}")(case)
        if self.cuda:
            torch.cuda.synchronize()
            outputs[""] = {"device_memory": torch.cuda.max_memory_allocated(), "captured": self.captured}
        return outputs

    def time(self, repeats):
        if self.events:
            return self._event_times(self.run, repeats)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            for _ in range(self.inner):
                self.run()
            if self.cuda:
                torch.cuda.synchronize()
            seconds.append((time.perf_counter() - start) / self.inner / self.copies)
        return seconds

    def _event_times(self, run, repeats):
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for start, stop in pairs:
            self.flush.sum()  # reads all and writes next to nothing: no line is left to be written back in what is timed
            start.record()
            run()
            stop.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) / 1e3 / self.copies for start, stop in pairs]

    # ---- operations

    def _operation(self, case):
        """The gradients of each copy are taken on the stream of its forward."""
        stream = torch.cuda.Stream() if self.cuda else None
        drawn, gradient = operands(case), functools.cache(lambda shape: draw(shape, case["seed"] + 50))
        pairs = [self._one(case, *drawn, gradient, stream) for _ in range(case.get("copies", 1))]
        y = self._graphed([run for run, _ in pairs], stream)
        return pairs[0][1](y)

    def _one(self, case, inputs, parameters, options, gradient, stream):
        """On tensors of its own: what is to be timed, and what makes named arrays of its result."""
        x = [image(torch.from_numpy(a).to(self.device, self.dtype, copy=True), self.last) for a in inputs]
        p = {k: to_torch(a).to(self.device, self.dtype, copy=True) for k, a in parameters.items()}
        if self.last and "weight" in p and p["weight"].ndim == 4:
            p["weight"] = p["weight"].contiguous(memory_format=torch.channels_last)
        forward = getattr(torch_operations, case["operation"])
        if case["direction"] == "forward":
            run = torch.no_grad()(lambda: forward(*x, **p, **options))
            return run, lambda y: {"y": back(y).float().cpu().numpy()}
        leaves = [a.requires_grad_() for a in (*x, *p.values())]
        if self.cuda:
            torch.cuda.synchronize()
        with torch.cuda.stream(stream):  # a backward runs on its forward's stream
            y = forward(*x, **p, **options)
            dy = image(torch.from_numpy(gradient(tuple(back(y).shape))).to(self.device, self.dtype), self.last)

        def outputs(g):
            found = {f"dx{i}": back(a).float().cpu().numpy() for i, a in enumerate(g[: len(x)])}
            for name, a in zip(p, g[len(x) :], strict=True):
                order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(a.ndim, (0,))
                found[f"d{name}"] = a.permute(order).float().cpu().numpy()
            return found

        return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True), outputs

    def _graphed(self, runs, stream):
        """What the first run returns; on a GPU the replay of all as one graph is what will be timed. Results are freed
        together, so that no two runs write to one place."""
        self.copies = len(runs)
        run = self.run = lambda: [each() for each in runs]
        if not self.cuda:
            return run()[0]
        self.events = True
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                y = run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                y = run()
        except RuntimeError:
            self.captured = False  # what cannot be is timed launch by launch, and the result says so
            return y[0]
        graph.replay()
        torch.cuda.synchronize()
        self.run = graph.replay
        return y[0]

    def _ceilings(self, case):
        """Bytes per second, read and written, of a copy; operations per second of products of random matrices."""
        n, size, found = case["size"], case["bytes"], {}
        a, b = (torch.empty(size, dtype=torch.int8, device=self.device) for _ in range(2))
        times = (
            self._event_times if self.cuda else lambda run, repeats: (setattr(self, "run", run), self.time(repeats))[1]
        )
        times(lambda: b.copy_(a), 3)
        found["copy_bytes_per_second"] = 2 * size / float(np.median(times(lambda: b.copy_(a), 20)))
        for dtype in ("bfloat16", "float32"):
            x, w = (torch.randn(n, n, device=self.device).to(getattr(torch, dtype)) for _ in range(2))
            product = functools.partial(torch.matmul, x, w)
            times(product, 3)
            found[f"{dtype}_per_second"] = 2 * n**3 / float(np.median(times(product, 10)))
        return found

    # ---- networks

    def _network(self, case):
        config = network(case["model"])
        net = UNet(config, weights(config, case["seed"])).to(self.device)
        if self.last:
            net = net.to(memory_format=torch.channels_last)
        return net, torch.compile(net, dynamic=False) if self.variant == "compile" else net

    def _images(self, x):
        return image(torch.from_numpy(x).to(self.device), self.last)

    def _conditions(self, config, case):
        given = conditions(config, case["batch"], case["seed"])
        return {k: self._images(a) if a.dtype == np.float32 else torch.from_numpy(a).to(self.device)
                for k, a in given.items()}  # fmt: skip

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def _forward(self, case):
        net, call = self._network(case)
        x = self._images(draw((case["batch"], *net.config.shape), case["seed"]))
        t = (torch.arange(case["batch"]) * 37 % 1000 + 1).to(self.device)
        given = self._conditions(net.config, case)

        @torch.inference_mode()
        def run():
            with self._autocast():
                return call(x, t, **given)

        self.run = run
        return {"y": back(run()).float().cpu().numpy()}

    def _train(self, case):
        config = config_of(case, "reference")
        net, call = self._network(case)
        n, schedule, p = case["batch"], config.schedule.build(), list(net.parameters())
        average = [a.detach().clone() for a in p]
        adam = torch.optim.Adam(p, config.train.learning_rate, fused=True)
        host = image(torch.from_numpy(draw((n, *net.config.shape), case["seed"], 0.5)), self.last)
        host = host.pin_memory() if self.cuda else host
        a, s = (torch.tensor(np.sqrt(v), dtype=torch.float32, device=self.device)[:, None, None, None]
                for v in (schedule.alpha_bar, schedule.one_minus_alpha_bar))  # fmt: skip
        assert net.config.outputs == 1, "the peers train with a fixed variance"
        given, number = self._conditions(net.config, case), 0
        null = {entry: (value, rate) for entry, value, rate in config.objective.null}

        def step(t, eps, dropped):
            """dropped: of each entry that is left out now and then, the samples in which it is."""
            nonlocal number
            number += 1
            x0 = host.to(self.device, non_blocking=True)
            adam.zero_grad(set_to_none=True)
            with self._autocast():
                told = {k: torch.where(dropped[k], null[k][0], c) if k in null else c for k, c in given.items()}
                loss = torch.nn.functional.mse_loss(call(a[t] * x0 + s[t] * eps, t, **told).float(), eps)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(p, config.train.max_grad_norm)
            adam.step()
            d = min(config.train.ema_decay, (1 + number) / (10 + number))
            torch._foreach_lerp_(average, [x.detach() for x in p], 1 - d)
            return loss, norm

        slots = [(torch.empty(2, pin_memory=True), torch.cuda.Event()) for _ in range(2)] if self.cuda else []

        def late(measured):
            """Queue the copy of loss and norm to the host, and wait for those of the step before."""
            (result, here), (_, before) = slots
            result.copy_(torch.stack([each.detach().float() for each in measured]), non_blocking=True)
            here.record()
            before.synchronize()
            slots.reverse()

        def run():
            t = torch.randint(1, schedule.T + 1, (n,), device=self.device)
            dropped = {k: torch.rand(n, device=self.device) <= rate for k, (_, rate) in null.items()}
            measured = step(t, torch.randn_like(host, device=self.device), dropped)
            if self.cuda:
                late(measured)

        self.run, place, key = run, np.arange(n), Key(case["seed"], 1, 0, n).under("Denoising")
        t = torch.from_numpy(integers(key("t"), place, 1, schedule.T)).to(self.device)
        eps = self._images(normal(key("eps"), place, net.config.shape))
        dropped = {k: torch.from_numpy(bernoulli(key(f"null/{k}"), n, rate) == 1).to(self.device)
                   for k, (_, rate) in null.items()}  # fmt: skip
        loss, norm = step(t, eps, dropped)
        if case.get("alone"):
            return {"loss": loss.item(), "gradient_norm": norm.item()}
        leaves = flatten(net.tree())
        flat = np.concatenate([np.ravel(leaves[name]) for name in sorted(leaves)])
        return {"loss": loss.item(), "gradient_norm": norm.item(), "p": flat}

    def _sample(self, case):
        config = config_of(case, "reference")
        net, call = self._network(case)
        schedule, n = config.schedule.build(), case["batch"]
        start = self._images(normal(Key(case["seed"]).under("sample")("start"), np.arange(n), net.config.shape))
        a, s = np.sqrt(schedule.alpha_bar), np.sqrt(schedule.one_minus_alpha_bar)
        given = self._conditions(net.config, case)
        steps = [0, *SPACINGS[config.sample.spacing](schedule, config.sample.steps).tolist()]

        @torch.inference_mode()
        def run():
            x = start
            for t, t_prev in zip(steps[:0:-1], steps[-2::-1], strict=True):
                with self._autocast():
                    eps = call(x, torch.full((n,), t, device=self.device), **given).float()
                x = float(a[t_prev] / a[t]) * (x - float(s[t]) * eps) + float(s[t_prev]) * eps
            return x

        self.run = run
        return {"x": back(run()).float().cpu().numpy()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", default="eager", choices=["eager", "channels-last", "compile"])
    options = parser.parse_args()
    # PyTorch says so of every error of CUDA's. After some of them nothing works any more; which these are it does not say.
    serve(TorchPeer(options.device, options.variant), fatal=lambda error: "CUDA error" in str(error))
