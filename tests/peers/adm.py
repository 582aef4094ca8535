"""The U-Net and the classifier of [ADM] in PyTorch, written from the paper's description: a second hand, NCHW, autograd.

A configuration is anything with the fields of refdiff's; nothing of refdiff computes here. Group norms have as many groups
as the configuration says, and refuse channels that these do not divide.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

HIDDEN = 2048  # of the perceptron behind the pooling called "spatial"


class Conditioning(nn.Module):
    """emb from t and the label: sinusoids, two linear layers, the label's row; through the SiLU that opens every block."""

    def __init__(self, config):
        super().__init__()
        self.config, e = config, 4 * config.width
        self.linear1, self.linear2 = nn.Linear(config.width, e), nn.Linear(e, e)
        if rows := labels_of(config):
            self.label = nn.Embedding(rows, e)

    def forward(self, t, label=None):
        half, cosine_first = self.config.width // 2, self.config.time == "adm"
        rate = torch.arange(half, dtype=torch.float64) / (half if cosine_first else half - 1)
        angle = t[:, None].double() * 10000.0**-rate
        waves = (angle.cos(), angle.sin()) if cosine_first else (angle.sin(), angle.cos())
        h = self.linear2(F.silu(self.linear1(torch.cat(waves, 1).to(self.linear1.weight.dtype))))
        if not hasattr(self, "label"):
            return F.silu(h)
        late = getattr(self.config, "embedding_silu", "sum") == "sum"
        return F.silu(h + self.label(label)) if late else F.silu(h) + self.label(label)


class Residual(nn.Module):
    """Norm, SiLU, convolution, twice; between them the embedding is added, or scales and shifts the second norm. With
    `resize`, both the path and the shortcut are resized before the first convolution (BigGAN)."""

    def __init__(self, config, c_in, c_out, resize=None, projected=False):
        super().__init__()
        self.scale_shift, self.resize = config.conditioning == "scale_shift", resize
        self.gain = gain_of(config, "residual")
        self.norm1, self.norm2 = norm(config, c_in), norm(config, c_out)
        self.conv1, self.conv2 = nn.Conv2d(c_in, c_out, 3, padding=1), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.embed = nn.Linear(4 * config.width, c_out * (1 + self.scale_shift))
        self.skip = nn.Conv2d(c_in, c_out, 1) if projected or c_in != c_out else nn.Identity()

    def forward(self, x, emb):
        h, e = F.silu(self.norm1(x)), self.embed(emb)[:, :, None, None]
        if self.resize:
            h, x = self.resize(h), self.resize(x)
        h = self.conv1(h)
        if self.scale_shift:
            scale, shift = e.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + e)
        return (self.skip(x) + self.conv2(F.silu(h))) * self.gain


class Attention(nn.Module):
    """Self-attention over all pixels behind a group norm; q k v of all heads in one product, in either published order."""

    def __init__(self, config, channels):
        super().__init__()
        self.heads, self.by_head = heads_of(config, channels), config.qkv == "interleaved"
        self.gain = gain_of(config, "residual")
        self.norm = norm(config, channels)
        self.qkv, self.out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)

    def forward(self, x, emb=None):
        n, c, *_ = x.shape
        qkv = self.qkv(self.norm(x).flatten(2))
        if self.by_head:  # rows [q_h, k_h, v_h] for each head in turn
            q, k, v = qkv.reshape(n, self.heads, 3, c // self.heads, -1).unbind(2)
        else:  # rows [q of all heads, k of all heads, v of all heads]
            q, k, v = qkv.reshape(n, 3, self.heads, c // self.heads, -1).unbind(1)
        return (x + self.out(attend(q, k, v).reshape(n, c, -1)).reshape(x.shape)) * self.gain


class Resize(nn.Module):
    """Half or twice the size outside a residual block. up: by nearest, then a convolution unless `plain`."""

    def __init__(self, kind, channels, up):
        super().__init__()
        self.kind, self.up = kind, up
        if kind in ("strided", "centred") or (up and kind == "pooled"):
            self.conv = nn.Conv2d(channels, channels, 3, 1 if up else 2, 0 if kind == "strided" and not up else 1)

    def forward(self, x, emb=None):
        if self.up:
            x = double(x)
            return x if self.kind == "plain" else self.conv(x)
        if self.kind == "strided":  # zeros after the last row and column only
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(x) if self.kind == "centred" else F.avg_pool2d(x, 2)


class Sequence(nn.ModuleList):
    """Layers in turn, each of which may look at the embedding."""

    def forward(self, x, emb):
        for layer in self:
            x = layer(x, emb)
        return x


class Encoder(nn.Module):
    """The first convolution, the way down and the middle; `widths` are the channels of the states on the way."""

    def __init__(self, config, channels):
        super().__init__()
        self.config = config
        c = stem_of(config)
        self.conv_in, self.widths = nn.Conv2d(channels, c, 3, padding=1), [c]
        size, self.down = min(sides_of(config)), nn.ModuleList()
        for level, multiplier in enumerate(config.multipliers):
            for _ in range(blocks_of(config, level)):
                self.down.append(block(config, c, wide(config, multiplier), size))
                c = wide(config, multiplier)
                self.widths.append(c)
            if level < len(config.multipliers) - 1:
                self.down.append(Sequence([resize(config, c, up=False)]))
                self.widths.append(c)
                size //= 2
        self.size = size
        self.pixels = math.prod(sides_of(config)) // 4 ** (len(config.multipliers) - 1)
        self.middle = Sequence([Residual(config, c, c), Attention(config, c), Residual(config, c, c)])

    def forward(self, x, emb):
        """The states on the way down, the first convolution's first, and what the middle makes of the last."""
        states = [self.conv_in(x)]
        for layers in self.down:
            states.append(layers(states[-1], emb))
        return states, self.middle(states[-1], emb)


class UNet(nn.Module):
    """[ADM] section 3: x (N, C, H, W), t (N,), label (N,), low_res (N, C, h, w) -> (N, outputs C, H, W)."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.conditioning = Conditioning(config)
        self.encoder = Encoder(config, config.channels * (1 + 2 * len(config.fourier) + bool(config.low_res)))
        widths, c, size = list(self.encoder.widths), self.encoder.widths[-1], self.encoder.size
        self.up, self.joins = nn.ModuleList(), []  # the way up; whether a layer's input is joined with a state
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            for _ in range(blocks_of(config, level) + 1):
                self.up.append(block(config, c + widths.pop(), wide(config, multiplier), size))
                self.joins.append(True)
                c = wide(config, multiplier)
            if level:
                self.up.append(Sequence([resize(config, c, up=True)]))
                self.joins.append(False)
                size *= 2
        self.norm, self.conv_out = norm(config, c), nn.Conv2d(c, config.outputs * config.channels, 3, padding=1)

    def forward(self, x, t, label=None, low_res=None):
        angles = [2.0**n * math.pi * x for n in self.config.fourier]  # [VDM] appendix C
        x = torch.cat([x, *map(torch.sin, angles), *map(torch.cos, angles)], 1)
        if low_res is not None:
            low_res = F.interpolate(low_res, x.shape[2:], mode="bilinear", align_corners=False)
            x = torch.cat([x, low_res], 1)
        emb = self.conditioning(t, label)
        states, h = self.encoder(x, emb)
        for layers, joins in zip(self.up, self.joins, strict=True):
            if joins:
                h = torch.cat([h, states.pop() * gain_of(self.config, "skips")], 1)
            h = layers(h, emb)
        return self.conv_out(F.silu(self.norm(h)))


class AttentionPool(nn.Module):
    """Pixels behind their mean as one more token, with positions; what the mean attends to, through a linear layer."""

    def __init__(self, config, channels, pixels):
        super().__init__()
        self.heads = heads_of(config, channels)
        self.positions = nn.Parameter(torch.empty(channels, pixels + 1))
        self.qkv, self.out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, config.classes, 1)

    def forward(self, x):
        n, c, *_ = x.shape
        x = x.flatten(2)
        x = torch.cat([x.mean(-1, keepdim=True), x], -1) + self.positions
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, c // self.heads, -1).unbind(1)
        return self.out(attend(q, k, v).reshape(n, c, -1))[:, :, 0]


class Classifier(nn.Module):
    """[ADM] section 4: x (N, C, H, W), t (N,) -> logits (N, classes), by one of the four published poolings."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.conditioning = Conditioning(config)
        self.encoder = Encoder(config, config.channels)
        c = self.encoder.widths[-1]
        features = sum(self.encoder.widths) + c
        if config.pooling == "attention":
            self.norm, self.pool = norm(config, c), AttentionPool(config, c, self.encoder.pixels)
        elif config.pooling == "adaptive":
            self.norm, self.out = norm(config, c), nn.Conv2d(c, config.classes, 1)
        else:
            self.linear1, self.linear2 = nn.Linear(features, HIDDEN), nn.Linear(HIDDEN, config.classes)
            if config.pooling == "spatial_v2":
                self.norm = norm(config, HIDDEN)

    def forward(self, x, t):
        states, h = self.encoder(x, self.conditioning(t))
        if self.config.pooling == "attention":
            return self.pool(F.silu(self.norm(h)))
        if self.config.pooling == "adaptive":
            return self.out(F.adaptive_avg_pool2d(F.silu(self.norm(h)), 1)).flatten(1)
        h = self.linear1(torch.cat([state.mean((2, 3)) for state in (*states, h)], 1))
        return self.linear2(F.relu(h) if self.config.pooling == "spatial" else F.silu(self.norm(h)))


def attend(q, k, v):
    """softmax(q k / sqrt d) v.   (N, heads, d, L) each; q and k are scaled by d^-1/4 each, as published."""
    gain = q.shape[2] ** -0.25
    weight = torch.einsum("nhdi,nhdj->nhij", q * gain, k * gain).softmax(-1)
    return torch.einsum("nhij,nhdj->nhdi", weight, v)


def block(config, c_in, c_out, size):
    """A residual block, with attention behind it at the sizes that have it."""
    residual = Residual(config, c_in, c_out)
    return Sequence([residual, Attention(config, c_out)] if size in config.attention else [residual])


def resize(config, channels, up):
    if config.resampling.startswith("residual"):
        how = double if up else halve
        return Residual(config, channels, channels, how, config.resampling == "residual_projected")
    return Resize(config.resampling, channels, up)


def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x):
    return F.avg_pool2d(x, 2)


def norm(config, channels):
    return nn.GroupNorm(config.groups, channels, config.epsilon)


def heads_of(config, channels):
    return channels // config.head_channels if config.head_channels else config.heads


def blocks_of(config, level):
    return config.blocks if isinstance(config.blocks, int) else config.blocks[level]


def wide(config, multiplier):
    return round(config.width * multiplier)


def stem_of(config):
    return wide(config, getattr(config, "stem", config.multipliers[0]))


def sides_of(config):
    return (config.size, config.size) if isinstance(config.size, int) else config.size


def labels_of(config):
    """Rows of the label table: of a U-Net with classes, and one more for no label unless it is left out."""
    if hasattr(config, "pooling") or not config.classes:
        return 0
    return config.classes + bool(config.null_label)


def gain_of(config, where):
    return math.sqrt(0.5) if getattr(config, "rescale", "none") == where else 1.0
