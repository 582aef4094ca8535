"""Each operation of the engines in PyTorch: what its users would call, on NCHW tensors."""

import torch
import torch.nn.functional as F


def image(x, last):
    """(N, H, W, C) -> (N, C, H, W), channels last in memory or first; anything else as it is."""
    if x.ndim != 4:
        return x
    return x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def back(y):
    """The inverse of `image`."""
    return y.permute(0, 2, 3, 1) if y.ndim == 4 else y


def conv2d(x, weight, bias, stride=1, padding=None):
    k = weight.shape[2]
    before, after = padding if padding else (k // 2, k // 2)
    if before == after:
        return F.conv2d(x, weight, bias, stride, before)
    return F.conv2d(F.pad(x, (before, after, before, after)), weight, bias, stride)


def linear(x, weight, bias):
    if x.ndim == 4:
        return F.conv2d(x, weight[:, :, None, None], bias)
    return F.linear(x, weight, bias)


def group_norm(x, weight, bias, groups, epsilon=1e-6):
    return F.group_norm(x, groups, weight, bias, epsilon)


def group_norm_silu(x, weight, bias, groups, epsilon=1e-6):
    return F.silu(F.group_norm(x, groups, weight, bias, epsilon))


def adaptive_group_norm_silu(x, scale, shift, weight, bias, groups, epsilon=1e-6):
    scale, shift = (a[:, :, *[None] * (x.ndim - 2)] for a in (scale, shift))
    return F.silu((1 + scale) * F.group_norm(x, groups, weight, bias, epsilon) + shift)


def layer_norm(x, weight, bias, epsilon=1e-5):
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


def attention(q, k, v, heads=1):
    q, k, v = (a.unflatten(-1, (heads, -1)).transpose(1, 2) for a in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def softmax(x):
    return x.softmax(-1)


def silu(x):
    return F.silu(x)


def gelu(x):
    return F.gelu(x)


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


def add(a, b):
    return a + b


def broadcast_add(x, e):
    return x + e[:, :, None, None]


def concat(a, b):
    return torch.cat([a, b], 1 if a.ndim == 4 else -1)


def upsample_nearest(x):
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def average_pool(x):
    return F.avg_pool2d(x, 2)


def global_average_pool(x):
    return x.mean((2, 3))


def resize_bilinear(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def scale(x, factor):
    return x * factor


def relu(x):
    return F.relu(x)


def accumulate(*dys):
    total = dys[0]
    for dy in dys[1:]:
        total = total + dy
    return total
