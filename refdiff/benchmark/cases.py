"""What is measured. A case is a dictionary that goes to each peer as JSON; what it computes on is drawn from its seed, so
that every peer has the same numbers.

    {"kind": "operation", "operation": "conv2d", "direction": "backward", "inputs": [[4, 32, 32, 128]],
     "parameters": {"weight": [3, 3, 128, 128], "bias": [128]}, "options": {}, "dtype": "float32", "seed": 0, "count": 7}
    {"kind": "forward", "model": "cifar10", "batch": 4, "dtype": "float32", "seed": 0}       also "train" and "sample"
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Mapping
from functools import cache
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from .. import models
from ..config import Config, NetworkConfig, SampleConfig, TrainConfig
from ..engines import reference
from ..models import MODELS, Tree, UNetConfig, flatten, unflatten
from ..objectives import Denoising

__all__ = ["NETWORKS", "conditions", "config_of", "draw", "label", "network", "operands", "operations", "weights"]

Case = dict[str, Any]

# Without dropout, whose masks no two libraries share. unet64 is near unet.cu's: ADM's 64x64 model at 64 channels, with the
# blocks of [DDPM] (ADM's scale-and-shift norm and its resampling inside residual blocks are not in it, but in digits-adm).
NETWORKS: dict[str, UNetConfig] = {
    **{name: dataclasses.replace(m, dropout=0.0) for name, m in MODELS.items() if isinstance(m, UNetConfig)},
    "unet64": UNetConfig(size=64, channels=3, width=64, multipliers=(1, 2, 3, 4), blocks=2, attention=(16, 8), heads=4),
}  # fmt: skip
_POOL = 1048583  # a prime, so that no axis of an array repeats it


@cache
def _pool() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(_POOL, dtype=np.float32)


def draw(shape: tuple[int, ...], seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Numbers of mean `shift` and deviation `scale`, from a pool of a million normal ones.   -> shape, float32."""
    n, first = prod(shape), seed * 611953 % _POOL
    flat = np.tile(_pool(), -(-(first + n) // _POOL))[first : first + n]
    return (flat * np.float32(scale) + np.float32(shift)).reshape(shape)


def network(model: str | Mapping[str, Any]) -> UNetConfig:
    """By name, or by its fields."""
    if isinstance(model, str):
        if model not in NETWORKS:
            raise ValueError(f"model: expected one of {', '.join(NETWORKS)}, got {model!r}")
        return NETWORKS[model]
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}
    return UNetConfig(**fields)


def conditions(config: UNetConfig, n: int, seed: int) -> dict[str, np.ndarray]:
    """What the network reads of n samples beside x and t: each class in turn, and a small image of drawn numbers."""
    found: dict[str, np.ndarray] = {}
    for name, entry in models.inputs(config).items():
        if name == "label":
            found[name] = np.arange(n) % config.classes
        elif name not in ("x", "t"):
            found[name] = draw((n, *entry.shape), seed + 7)
    return found


def config_of(case: Mapping[str, Any], engine: str) -> Config:
    """The run that a model's case is a step of: DDIM without noise, a constant rate, clipping and average as presets do."""
    steps, model = int(case.get("steps", 4)), network(case["model"])
    return Config(
        networks={"denoiser": NetworkConfig(model)},
        objective=Denoising(bins=17, variance="learned" if model.outputs == 2 else "fixed"),
        train=TrainConfig(steps=1000, batch=case["batch"], learning_rate=2e-4, warmup=0, decay="constant"),
        sample=SampleConfig("ddim", steps, eta=0.0, threshold="none"),
        engine=engine,
        dtype=case["dtype"] if engine == "cuda" else "float32",
        seed=case["seed"],
    )


def weights(config: UNetConfig, seed: int) -> Tree:
    """Parameters with no zeros among them, as after some training."""
    flat = {}
    for i, (name, parameter) in enumerate(flatten(models.layout(config)).items()):
        flat[name] = _parameter(name.rsplit("/")[-1], parameter.shape, seed + i)
    return unflatten(flat)


def _parameter(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if len(shape) > 1:
        return draw(shape, seed, 0.7 * prod(shape[:-1]) ** -0.5)
    return draw(shape, seed, 0.1, 1.0 if name == "weight" else 0.0)


def operands(case: Mapping[str, Any]) -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, Any]]:
    """Of an operation: its inputs, its parameters (float32, on the host), and its options."""
    seed = case["seed"]
    inputs = [draw(tuple(shape), seed + i + 1) for i, shape in enumerate(case["inputs"])]
    parameters = {
        name: _parameter(name, tuple(shape), seed + 100 + i)
        for i, (name, shape) in enumerate(case["parameters"].items())
    }
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in case["options"].items()}
    return inputs, parameters, options


def label(case: Mapping[str, Any]) -> str:
    """In words, for a table."""
    if case["kind"] != "operation":
        model = case["model"]
        name = model if isinstance(model, str) else f"{model['size']}x{model['size']} width {model['width']}"
        return f"{name} {case['kind']}, batch {case['batch']}, {case['dtype']}"
    shapes = " + ".join("x".join(map(str, s)) for s in case["inputs"])
    weight = case["parameters"].get("weight")
    to = f" -> {weight[-1]}" if weight and len(weight) > 1 else ""
    filters = f" {weight[0]}x{weight[1]}" if weight and len(weight) == 4 else ""
    stride = f" /{case['options']['stride']}" if case["options"].get("stride", 1) != 1 else ""
    back = " backward" if case["direction"] == "backward" else ""
    return f"{case['operation']}{back}{filters}{stride} {shapes}{to}, {case['dtype']}"


# Those that move nothing, and those that read a few integers.
_SKIPPED = {"reshape", "split", "embedding", "time_embedding"}


class _Recording:
    """An engine that notes what each forward is called with."""

    def __init__(self, engine: ModuleType) -> None:
        self.engine, self.calls = engine, Counter[str]()
        self.cases: dict[str, Case] = {}

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.engine, name)
        known = (hasattr(reference, f"{name}_backward") or name == "accumulate") and name not in _SKIPPED
        if not known:
            return function

        def record(*args: Any, **kwargs: Any) -> Any:
            case = _case(name, args, kwargs)
            key = repr(case)
            self.cases[key] = case
            self.calls[key] += 1
            return function(*args, **kwargs)

        return record if not name.endswith("_backward") else function


def _case(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Case:
    bound = inspect.signature(getattr(reference, name)).bind(*args, **kwargs).arguments
    case: Case = {"kind": "operation", "operation": name, "inputs": [], "parameters": {}, "options": {}}
    for key, value in bound.items():
        if isinstance(value, tuple) and all(hasattr(v, "shape") for v in value):
            case["inputs"] += [list(v.shape) for v in value]
        elif not hasattr(value, "shape"):
            case["options"][key] = list(value) if isinstance(value, tuple) else value
        elif key in ("weight", "bias"):
            case["parameters"][key] = list(value.shape)
        else:
            case["inputs"].append(list(value.shape))
    return case


def operations(model: str | Mapping[str, Any], batch: int, dtype: str = "float32") -> list[Case]:
    """Every operation of a training step of this network, each shape once, with how often it occurs, both directions.

    The backward of an addition is none. The network is walked on a device that runs nothing: no time, no memory.
    """
    from ..engines import cuda
    from ..engines.cuda.runtime.arena import Arena
    from ..engines.cuda.runtime.dry_run import DryRunDevice

    config, device = network(model), DryRunDevice()
    recording = _Recording(cuda)
    with cuda.use(cuda.Context(device, Arena(device, 1 << 50))) as context:
        layout = models.layout(config)
        p = models.tree_map(
            lambda a, kind: context.empty(a.shape, kind), layout, unflatten(models.dtypes(layout, dtype))
        )
        inputs = {
            name: context.empty((batch, *entry.shape), dtype if entry.kind == "float" else "int32")
            for name, entry in models.inputs(config).items()
        }
        net = models.Network(config, p)
        y, saved = models.forward(recording, net, inputs)  # type: ignore[arg-type]
        models.backward(recording, net, y, saved, wrt=("x",))  # type: ignore[arg-type]
    cases = []
    for key, case in recording.cases.items():
        common = {**case, "dtype": dtype, "seed": 0, "count": recording.calls[key]}
        directions = ["forward"] if case["operation"] in ("accumulate", "add") else ["forward", "backward"]
        cases += [{**common, "direction": direction} for direction in directions]
    return cases
