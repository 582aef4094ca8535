"""What the tests send to worker processes."""

import time

import numpy as np

from refdiff.engines import cpu
from refdiff.engines.cpu.runtime import flat_optimiser
from refdiff.engines.cpu.runtime.data_parallel import ShardWorker

SIZE = 128  # numbers of a buffer of `Regression`: a weight (4, 3) at 0, a bias (3,) at 64


class Adder:
    """Adds numbers, and those of shared buffers."""

    def __init__(self, first, buffers=None):
        self.total, self.buffers = first, buffers

    def add(self, number):
        self.total += number
        return self.total

    def fill(self, name, value):
        self.buffers[name][...] = value

    def refuse(self, message):
        raise ValueError(message)

    def square(self, x):
        return x * x

    def lambdas(self):
        return lambda: 0

    def sleep(self, seconds):
        time.sleep(seconds)


class Regression(ShardWorker):
    """A linear layer and a squared error."""

    target = 0.5

    def gradient(self, i, shards, step, first, total, x):
        def f(p, x):
            y, saved = cpu.linear(x, p[:12].reshape(4, 3), p[64:67])
            loss, difference = cpu.squared_error(y, np.full(y.shape, self.target, np.float32))
            _, g = cpu.linear_backward(cpu.squared_error_backward(1 / total, difference), saved, needs_dx=False)
            return loss, [(0, g["weight"]), (64, g["bias"])]

        return self.differentiate(i, shards, (first, total), f, x)

    def update(self, i, processes, step, scale):
        trees = (self.buffers[name] for name in ("p", "g0", "m", "v", "ema"))
        flat_optimiser.update(*trees, step, 1e-2, 0.1, scale=scale, decay=0.9, share=(i, processes))

    def predict(self, shards, x):
        p = self.buffers["p"]
        with self.running(shards):
            return cpu.linear(x, p[:12].reshape(4, 3), p[64:67])[0]
