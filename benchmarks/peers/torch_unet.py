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
            self.register_parameter(name.replace("/", "__"), nn.Parameter(to_torch(a)))
        self.names = frozenset(name.replace("/", "__") for name in flatten(p))
        # Worked out here, not in forward, so that torch.compile sees one graph.
        norms = {k.removesuffix("__weight"): len(a) for k, a in self.named_parameters() if k.endswith("__weight")}
        self.groups = {
            k: groups_of(c, config.groups) for k, c in norms.items() if k.rpartition("__")[2].startswith("norm")
        }
        half = config.width // 2
        over = half - 1 if config.time == "ddpm" else half
        self.register_buffer("frequency", torch.exp(-math.log(10000.0) * torch.arange(half) / over))

    def tree(self):
        """The parameters as refdiff has them."""
        return unflatten({k.replace("__", "/"): from_torch(a) for k, a in self.named_parameters()})

    def forward(self, x, t):
        """x (N, C, H, W), t (N,) -> (N, C, H, W)."""
        emb = self._time(t)
        h = self._conv(x, "conv_in")
        skips = [h]
        for layer in self.encoder:
            if layer.kind == "block":
                h = self._block(layer.name, h, emb)
            elif self.config.resampling == "strided":
                h = self._conv(F.pad(h, (0, 1, 0, 1)), f"{layer.name}__conv", stride=2, padding=0)
            else:
                h = F.avg_pool2d(h, 2)
            skips.append(h)
        h = self._block("middle_block1", self._block("middle_block0", h, emb), emb)
        for layer in self.decoder:
            if layer.kind == "block":
                h = self._block(layer.name, torch.cat([h, skips.pop()], 1), emb)
            else:
                h = self._conv(F.interpolate(h, scale_factor=2.0, mode="nearest"), f"{layer.name}__conv")
        return self._conv(F.silu(self._norm(h, "norm_out")), "conv_out")

    def _time(self, t):
        angle = t.float()[:, None] * self.frequency
        waves = (angle.sin(), angle.cos()) if self.config.time == "ddpm" else (angle.cos(), angle.sin())
        h = F.pad(torch.cat(waves, 1), (0, self.config.width % 2))
        return F.silu(self._linear(F.silu(self._linear(h, "time__linear1")), "time__linear2"))

    def _block(self, name, x, emb):
        r = f"{name}__residual"
        h = self._conv(F.silu(self._norm(x, f"{r}__norm1")), f"{r}__conv1")
        h = h + self._linear(emb, f"{r}__time")[:, :, None, None]
        h = self._conv(F.silu(self._norm(h, f"{r}__norm2")), f"{r}__conv2")
        if f"{r}__shortcut__weight" in self.names:
            x = self._pointwise(x, f"{r}__shortcut")
        h = x + h
        return self._attention(h, f"{name}__attention") if f"{name}__attention__norm__weight" in self.names else h

    def _attention(self, x, name):
        n, c, height, width = x.shape
        h = self._pointwise(self._norm(x, f"{name}__norm"), f"{name}__qkv")
        q, k, v = h.reshape(n, 3, self.config.heads, -1, height * width).transpose(-1, -2).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(n, c, height, width)
        return x + self._pointwise(h, f"{name}__projection")

    def _conv(self, x, name, stride=1, padding=1):
        return F.conv2d(x, getattr(self, f"{name}__weight"), getattr(self, f"{name}__bias"), stride, padding)

    def _pointwise(self, x, name):
        return F.conv2d(x, getattr(self, f"{name}__weight")[:, :, None, None], getattr(self, f"{name}__bias"))

    def _linear(self, x, name):
        return F.linear(x, getattr(self, f"{name}__weight"), getattr(self, f"{name}__bias"))

    def _norm(self, x, name):
        return F.group_norm(
            x, self.groups[name], getattr(self, f"{name}__weight"), getattr(self, f"{name}__bias"), 1e-6
        )
