"""The peers that are refdiff's own engines of the host: python -m refdiff.benchmark.host reference|cpu."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import engines
from ..models import Network, flatten
from ..sampling import make_trajectory, network_function
from ..training import State, trained, trainer
from .cases import conditions, config_of, draw, network, operands, weights
from .machine import versions
from .protocol import serve

__all__ = ["HostPeer"]


class HostPeer:
    """engine: "reference" or "cpu"."""

    def __init__(self, engine: str) -> None:
        self.name, self.engine = engine, engines.get(engine)
        self.run: Callable[[], Any] = lambda: None

    def about(self) -> dict[str, Any]:
        threads = getattr(self.engine, "threads", None)
        return {"numpy": versions()["numpy"], "threads": threads() if threads else 1}

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        self.run = lambda: None  # and free what was
        return getattr(self, f"_{case['kind']}")(case)

    def time(self, repeats: int) -> list[float]:
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            self.run()
            seconds.append(time.perf_counter() - start)
        return seconds

    def _operation(self, case: dict[str, Any]) -> dict[str, Any]:
        inputs, parameters, options = operands(case)
        forward = getattr(self.engine, case["operation"])
        if case["direction"] == "forward":
            self.run = lambda: forward(*inputs, **parameters, **options)
            y = self.run()
            return {"y": y[0] if isinstance(y, tuple) else y}
        y, saved = forward(*inputs, **parameters, **options)
        dy = draw(y.shape, case["seed"] + 50)
        backward = getattr(self.engine, f"{case['operation']}_backward")
        self.run = lambda: backward(dy, saved)
        return named(self.run())

    def _forward(self, case: dict[str, Any]) -> dict[str, Any]:
        config = network(case["model"])
        p, x = weights(config, case["seed"]), draw((case["batch"], *config.shape), case["seed"])
        t = np.arange(case["batch"]) * 37 % 1000 + 1
        batch = {"x": x, "t": t} | conditions(config, case["batch"], case["seed"])
        predict = network_function(self.name, Network(config, p))
        self.run = lambda: predict(batch)
        return {"y": self.run()}

    def _train(self, case: dict[str, Any]) -> dict[str, Any]:
        worker = trainer_of(case, self.name)
        config = worker.config.model
        data = {"x": draw((case["batch"], *config.shape), case["seed"], 0.5)}
        data |= conditions(config, case["batch"], case["seed"])
        self.run = lambda: worker.step(data)
        step = self.run()
        found = {"loss": step.loss, "gradient_norm": step.gradient_norm}
        return found if case.get("alone") else {**found, "p": _flat(worker.state().trees["p"]["denoiser"])}

    def _sample(self, case: dict[str, Any]) -> dict[str, Any]:
        config, index = config_of(case, self.name), np.arange(case["batch"])
        state = State.first(config, {"denoiser": weights(network(case["model"]), case["seed"])})
        walk = make_trajectory(trained(config, state))
        given = conditions(network(case["model"]), case["batch"], case["seed"])
        self.run = lambda: deque(walk(index, case["seed"], given, every=False), maxlen=1).pop()[1]
        return {"x": self.run()}


def trainer_of(case: dict[str, Any], engine: str) -> Any:
    """Who makes the training steps of this case, before the first."""
    config = config_of(case, engine)
    worker: Any = trainer(config, State.first(config, {"denoiser": weights(network(case["model"]), case["seed"])}))
    worker.config = config
    return worker


def named(gradients: Any) -> dict[str, Any]:
    """What a backward returned, by names: dx0, dx1 ..., dweight, dbias."""
    parts = gradients if isinstance(gradients, tuple) else (gradients,)
    arrays: dict[str, Any] = {}
    for i, part in enumerate(parts):
        arrays |= {f"d{k}": v for k, v in part.items()} if isinstance(part, dict) else {f"dx{i}": part}
    return arrays


def _flat(tree: Any) -> np.ndarray:
    leaves = flatten(tree)
    return np.concatenate([np.ravel(leaves[name]) for name in sorted(leaves)])


if __name__ == "__main__":
    serve(HostPeer(sys.argv[1]))
