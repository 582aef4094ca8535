"""The U-Net of refdiff/models/unet.py in PyTorch, layer for layer, with the same parameters: as its users write it, NCHW.

Weights are in PyTorch's layout, OIHW and (out, in), under refdiff's names.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from refdiff.models import flatten, unflatten
from refdiff.models.blocks import groups_of
from refdiff.models.unet import decoder, encoder


def to_torch(a: np.ndarray) -> torch.Tensor:
    """A parameter of refdiff: HWIO -> OIHW, (in, out) -> (out, in)."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(a.ndim, (0,))
    return torch.from_numpy(np.ascontiguousarray(a.transpose(order)))


def from_torch(a: torch.Tensor) -> np.ndarray:
    """The inverse of `to_torch`."""
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(a.ndim, (0,))
    return a.detach().float().cpu().numpy().transpose(order)


class UNet(nn.Module):
    """config: a UNetConfig without dropout; p: the parameters, a tree of arrays."""

    def __init__(self, config, p):
        super().__init__()
        assert not config.dropout, "the peers are compared without dropout"
        self.config, self.encoder, self.decoder = config, encoder(config), decoder(config)
        for name, a in flatten(p).items():
            table = name == "label/weight"  # of which rows are read
            self.register_parameter(
                name.replace("/", "__"), nn.Parameter(torch.from_numpy(a.copy()) if table else to_torch(a))
            )
        self.names = frozenset(name.replace("/", "__") for name in flatten(p))
        # Worked out here, not in forward, so that torch.compile sees one graph.
        norms = {k.removesuffix("__weight"): len(a) for k, a in self.named_parameters() if k.endswith("__weight")}
        self.groups = {
            k: groups_of(c, config.groups) for k, c in norms.items() if k.rpartition("__")[2].startswith("norm")
        }
        self.heads = {
            k.removesuffix("__qkv__weight"): config.heads_of(len(a) // 3)
            for k, a in self.named_parameters() if k.endswith("__qkv__weight")
        }  # fmt: skip
        self.factor, self.of_skips = config.branch_factor, 0.5**0.5 if config.rescale == "skips" else 1.0
        half = config.width // 2
        over = half - 1 if config.time == "ddpm" else half
        self.register_buffer("frequency", torch.exp(-math.log(10000.0) * torch.arange(half) / over))

    def tree(self):
        """The parameters as refdiff has them."""
        return unflatten({
            k.replace("__", "/"): a.detach().float().cpu().numpy() if k == "label__weight" else from_torch(a)
            for k, a in self.named_parameters()
        })  # fmt: skip

    def forward(self, x, t, label=None, low_res=None):
        """x (N, C, H, W), t (N,), of a network with classes label (N,), of one that enlarges low_res (N, C, h, w)."""
        emb = self._embedding(t, label)
        if low_res is not None:
            low_res = F.interpolate(low_res, x.shape[2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, low_res], 1)
        h = self._conv(x, "conv_in")
        skips = [h]
        for layer in self.encoder:
            h = self._layer(layer, h, emb)
            skips.append(h)
        h = self._block("middle_block1", self._block("middle_block0", h, emb), emb)
        for layer in self.decoder:
            if layer.kind == "block":
                skip = skips.pop()
                h = torch.cat([h, skip if self.of_skips == 1 else skip * self.of_skips], 1)
            h = self._layer(layer, h, emb)
        return self._conv(F.silu(self._norm(h, "norm_out")), "conv_out")

    def _embedding(self, t, label):
        angle = t.float()[:, None] * self.frequency
        waves = (angle.sin(), angle.cos()) if self.config.time == "ddpm" else (angle.cos(), angle.sin())
        h = F.pad(torch.cat(waves, 1), (0, self.config.width % 2))
        h = self._linear(F.silu(self._linear(h, "time__linear1")), "time__linear2")
        if label is None:
            return F.silu(h)
        e = F.embedding(label, self.label__weight)
        return F.silu(h + e) if self.config.embedding_silu == "sum" else F.silu(h) + e

    def _layer(self, layer, h, emb):
        kind = self.config.resampling
        if layer.kind == "block":
            return self._block(layer.name, h, emb)
        if kind.startswith("residual"):
            return self._block(layer.name, h, emb, halve if layer.kind == "down" else double)
        conv = f"{layer.name}__conv"
        if layer.kind == "up":
            h = double(h)
            return h if kind == "plain" else self._conv(h, conv)
        if kind == "strided":
            return self._conv(F.pad(h, (0, 1, 0, 1)), conv, stride=2, padding=0)
        return self._conv(h, conv, stride=2) if kind == "centred" else halve(h)

    def _block(self, name, x, emb, resize=None):
        r = f"{name}__residual"
        h = F.silu(self._norm(x, f"{r}__norm1"))
        if resize:
            h, x = resize(h), resize(x)
        h, e = self._conv(h, f"{r}__conv1"), self._linear(emb, f"{r}__time")[:, :, None, None]
        if self.config.conditioning == "scale_shift":
            scale, shift = e.chunk(2, 1)
            h = self._norm(h, f"{r}__norm2") * (1 + scale) + shift
        else:
            h = self._norm(h + e, f"{r}__norm2")
        h = self._conv(F.silu(h), f"{r}__conv2")
        if f"{r}__shortcut__weight" in self.names:
            x = self._pointwise(x, f"{r}__shortcut")
        h = self._rescaled(x + h)
        return self._attention(h, f"{name}__attention") if f"{name}__attention__norm__weight" in self.names else h

    def _attention(self, x, name):
        n, c, height, width = x.shape
        h = self._pointwise(self._norm(x, f"{name}__norm"), f"{name}__qkv")
        heads = self.heads[name]
        if self.config.qkv == "split":
            q, k, v = h.reshape(n, 3, heads, -1, height * width).transpose(-1, -2).unbind(1)
        else:
            q, k, v = h.reshape(n, heads, 3, -1, height * width).transpose(-1, -2).unbind(2)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(n, c, height, width)
        return self._rescaled(x + self._pointwise(h, f"{name}__projection"))

    def _rescaled(self, x):
        return x if self.factor == 1 else x * self.factor

    def _conv(self, x, name, stride=1, padding=1):
        return F.conv2d(x, getattr(self, f"{name}__weight"), getattr(self, f"{name}__bias"), stride, padding)

    def _pointwise(self, x, name):
        return F.conv2d(x, getattr(self, f"{name}__weight")[:, :, None, None], getattr(self, f"{name}__bias"))

    def _linear(self, x, name):
        return F.linear(x, getattr(self, f"{name}__weight"), getattr(self, f"{name}__bias"))

    def _norm(self, x, name):
        return F.group_norm(
            x, self.groups[name], getattr(self, f"{name}__weight"), getattr(self, f"{name}__bias"), self.config.epsilon
        )


def double(x):
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def halve(x):
    return F.avg_pool2d(x, 2)
