"""Keys under the names that they had in earlier versions: runs and files that use them are read as they are."""

from __future__ import annotations

from typing import Any

__all__ = ["modern"]

_MOVED = {
    ("schedule", "law"): ("schedule", "kind"),
    ("train", "average"): ("train", "ema_decay"),
    ("train", "clip"): ("train", "max_grad_norm"),
    ("train", "prediction"): ("objective", "prediction"),
}


def modern(table: dict[str, Any]) -> dict[str, Any]:
    """A table of a configuration with the names of today; [model] stands for [networks.denoiser]. `table` is unchanged."""
    table = {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
    for (name, old), (home, new) in _MOVED.items():
        part = table.get(name)
        if isinstance(part, dict) and old in part:
            _put(table, home, new, part.pop(old))
            if not part:
                del table[name]
    sample = table.get("sample")
    if isinstance(sample, dict) and isinstance(sample.get("clip"), bool):
        sample.setdefault("threshold", "static" if sample.pop("clip") else "none")
    if "model" in table:
        model = table.pop("model")
        networks = table.setdefault("networks", {})
        if isinstance(networks, dict):
            own = networks.get("denoiser", {})
            networks["denoiser"] = model | own if isinstance(model, dict) and isinstance(own, dict) else model
    networks = table.get("networks")
    if isinstance(networks, dict):
        table["networks"] = {name: _of_network(network) for name, network in networks.items()}
    return table


def _of_network(network: Any) -> Any:
    """The table of a network with the names of today: `downsampling` is `resampling`."""
    if not isinstance(network, dict) or "downsampling" not in network:
        return network
    return {"resampling": network["downsampling"]} | {k: v for k, v in network.items() if k != "downsampling"}


def _put(table: dict[str, Any], home: str, key: str, value: Any) -> None:
    part = table.setdefault(home, {})
    if isinstance(part, dict):
        part.setdefault(key, value)
