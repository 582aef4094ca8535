"""Parameters of refdiff under the names and in the layouts of others: HWIO -> OIHW, (in, out) -> (out, in).

A tree of gradients goes the same way, so gradients are compared under the other's names too.
"""

import re

import numpy as np

from refdiff.models import flatten

_PARTS = {
    "residual/time": "0.embed",
    "residual/shortcut": "0.skip",
    "residual": "0",
    "attention/projection": "1.out",
    "attention": "1",
    "conv": "0.conv",
}
_WHOLE = {
    "time": "conditioning",
    "label/weight": "conditioning.label.weight",
    "conv_in": "encoder.conv_in",
    "middle_block0/residual/time": "encoder.middle.0.embed",
    "middle_block0/residual": "encoder.middle.0",
    "middle_block0/attention/projection": "encoder.middle.1.out",
    "middle_block0/attention": "encoder.middle.1",
    "middle_block1/residual/time": "encoder.middle.2.embed",
    "middle_block1/residual": "encoder.middle.2",
    "norm_out": "norm",
    "pool/hidden": "linear1",
    "pool/norm": "norm",
}


def to_adm(net, tree):
    """The tree for the state of `net`, a network of `adm`, as arrays of PyTorch's shapes by its names."""
    config, flat = net.config, dict(flatten(tree))
    names = _WHOLE | _layers(config)
    attends = "pool/q/weight" in flat
    if attends:
        mean, pixels = flat.pop("pool/mean_position/weight"), flat.pop("pool/position/weight")
        for leaf in ("weight", "bias"):
            flat[f"pool/qkv/{leaf}"] = np.concatenate([flat.pop(f"pool/{n}/{leaf}") for n in ("q", "kv")], -1)
        names |= {"pool/qkv": "pool.qkv", "pool/projection": "pool.out"}
    elif "pool/hidden/weight" in flat:
        names["pool/projection"] = "linear2"
    else:
        names["pool/projection"] = "out"
    shapes = {name: tuple(a.shape) for name, a in net.state_dict().items()}
    state = {}
    for path, a in flat.items():
        known = max((own for own in names if path == own or path.startswith(f"{own}/")), key=len, default="")
        name = (names[known] + path.removeprefix(known) if known else path).replace("/", ".")
        order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(a.ndim, (0,))
        a = a if name.endswith("label.weight") else a.transpose(order)
        state[name] = np.ascontiguousarray(a).reshape(shapes[name])
    if attends:
        state["pool.positions"] = np.ascontiguousarray(np.concatenate([mean[None], pixels]).T)
    assert {name: a.shape for name, a in state.items()} == shapes
    return state


def _layers(config):
    """Our names of the layers on both ways, in the order in which they are passed, for their numbers there."""
    levels = len(config.multipliers)
    depths = [config.blocks] * levels if isinstance(config.blocks, int) else config.blocks
    down, up = [], []
    for level, depth in enumerate(depths):
        down += [f"down{level}_block{i}" for i in range(depth)] + [f"down{level}_halve"] * (level < levels - 1)
    for level, depth in reversed(list(enumerate(depths))):
        up += [f"up{level}_block{i}" for i in range(depth + 1)] + [f"up{level}_double"] * (level > 0)
    names = {}
    for way, layers in (("encoder.down", down), ("up", up)):
        for i, layer in enumerate(layers):
            names |= {f"{layer}/{ours}": f"{way}.{i}.{theirs}" for ours, theirs in _PARTS.items()}
    return names


_DIFFUSERS = (
    (r"^conditioning\.linear", "time_embedding.linear_"),
    (r"^conditioning\.label", "class_embedding"),
    (r"^encoder\.conv_in", "conv_in"),
    (r"^norm\.", "conv_norm_out."),
    (r"^encoder\.middle\.0", "mid_block.resnets.0"),
    (r"^encoder\.middle\.1", "mid_block.attentions.0"),
    (r"^encoder\.middle\.2", "mid_block.resnets.1"),
    (r"\.embed\.", ".time_emb_proj."),
    (r"\.skip\.", ".conv_shortcut."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.out\.", r"\1.to_out.0."),
)


def to_diffusers(config, state):
    """A state of `adm.UNet` as that of diffusers' UNet2DModel: q, k and v apart, layers by their levels."""
    levels = len(config.multipliers)
    down, up, renamed = {}, {}, {}
    for level in range(levels):
        for i in range(config.blocks):
            down[len(down)] = f"down_blocks.{level}", i
        if level < levels - 1:
            down[len(down)] = f"down_blocks.{level}.downsamplers.0", None
        for i in range(config.blocks + 1):
            up[len(up)] = f"up_blocks.{level}", i
        if level < levels - 1:
            up[len(up)] = f"up_blocks.{level}.upsamplers.0", None
    for name, a in state.items():
        if found := re.match(r"(encoder\.down|up)\.(\d+)\.([01])\.(.*)", name):
            way, i, part, rest = found.groups()
            place, number = (up if way == "up" else down)[int(i)]
            kind = "" if number is None else f".{('resnets', 'attentions')[int(part)]}.{number}"
            name = f"{place}{kind}.{rest}"
        for pattern, other in _DIFFUSERS:
            name = re.sub(pattern, other, name)
        if ".qkv." not in name:
            renamed[name] = a[..., 0] if name.endswith("to_out.0.weight") else a
            continue
        a = a[..., 0] if name.endswith("weight") else a
        for part, own in zip("qkv", _q_k_v(config, a), strict=True):
            renamed[name.replace(".qkv.", f".to_{part}.")] = own
    return renamed


def _q_k_v(config, a):
    """Of the rows of a product for all three."""
    c = len(a) // 3
    if config.qkv == "split":
        return np.split(a, 3)
    by_head = a.reshape(config.heads_of(c), 3, -1, *a.shape[1:])
    return [by_head[:, i].reshape(c, *a.shape[1:]) for i in range(3)]
