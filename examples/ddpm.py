"""The whole of "Denoising diffusion probabilistic models" [DDPM] in one file: NumPy alone, every gradient by hand.

`python examples/ddpm.py --steps 3000 --out digits.png` learns the bundled handwritten digits and draws 64 new ones. Images
are (N, H, W, C), t (N,) runs from 1 to T, `d...` is the loss's gradient in `...`. An operation returns its result and what
its backward needs; the backward returns the gradient of its input and, where there are parameters, theirs by name.
"""

import argparse
from pathlib import Path
from struct import pack
from zlib import compress, crc32

import numpy as np

T = 1000
beta = np.concatenate([[0.0], np.linspace(1e-4, 0.02, T)])  # beta[t]; index 0 is the data themselves
alpha_bar = np.cumprod(1 - beta)
CHANNELS = {1: (32, 32), 2: (32, 64), 3: (96, 32)}  # of each block of the U-Net, in and out


def q_sample(x0, t, eps):
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, t steps of noise at once.   eq. 4"""
    a, s = (np.sqrt(c[t])[:, None, None, None].astype(x0.dtype) for c in (alpha_bar, 1 - alpha_bar))
    return a * x0 + s * eps


def p_step(x_t, t, eps_hat, z):
    """x_{t-1} = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps_hat) / sqrt(alpha_t) + sqrt(beta_t) z.   algorithm 2, line 4"""
    b, s = float(beta[t]), float(1 - alpha_bar[t]) ** 0.5
    return (x_t - b / s * eps_hat) / (1 - b) ** 0.5 + (b**0.5 * z if t > 1 else 0)


def linear(x, w, b):
    """y = x w + b along the last axis."""
    return x @ w + b, (x, w)


def linear_backward(dy, saved):
    x, w = saved
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dy @ w.T, {"w": rows.T @ drows, "b": drows.sum(0)}


def conv(x, w, b):
    """3x3: the nine neighbours of each pixel side by side, zeros outside, times w (9 C_in, C_out)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + x.shape[1], j : j + x.shape[2]] for i in range(3) for j in range(3)]
    return linear(np.concatenate(shifted, -1), w, b)


def conv_backward(dy, saved):
    """The gradient of each neighbour is added where that was taken from."""
    dneighbours, g = linear_backward(dy, saved)
    n, h, w, c = dneighbours.shape
    dpadded = np.zeros((n, h + 2, w + 2, c // 9), dneighbours.dtype)
    for k, d in enumerate(np.split(dneighbours, 9, -1)):
        dpadded[:, k // 3 : k // 3 + h, k % 3 : k % 3 + w] += d
    return dpadded[:, 1:-1, 1:-1], g


def norm_silu(x, w, b, groups=8):
    """z s(z), s(z) = 1 / (1 + exp(-z)), of the group norm z = w x^ + b: x^ = (x - mean) / sd within each group."""
    split = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    away = split - split.mean((1, 3), keepdims=True)
    sd = np.sqrt((away**2).mean((1, 3), keepdims=True) + 1e-5)
    x_hat = (away / sd).reshape(x.shape)
    z = w * x_hat + b
    s = 0.5 + 0.5 * np.tanh(0.5 * z)
    return z * s, (x_hat, sd, w, z, s)


def norm_silu_backward(dy, saved):
    """dz = dy s (1 + z (1 - s)); dx = (d - mean(d) - x^ mean(d x^)) / sd with d = w dz."""
    x_hat, sd, w, z, s = saved
    dz = dy * s * (1 + z * (1 - s))
    d, h = (a.reshape(len(a), -1, sd.shape[2], a.shape[-1] // sd.shape[2]) for a in (w * dz, x_hat))
    dx = (d - d.mean((1, 3), keepdims=True) - h * (d * h).mean((1, 3), keepdims=True)) / sd
    return dx.reshape(dy.shape), {"w": (dz * x_hat).sum((0, 1, 2)), "b": dz.sum((0, 1, 2))}


def attention(x, w, b):
    """x + softmax(q k' / sqrt(C)) v over all pixels; q, k and v side by side in x w + b."""
    qkv, of_qkv = linear(x.reshape(len(x), -1, x.shape[-1]), w, b)
    q, k, v = np.split(qkv, 3, -1)
    scores = q @ k.swapaxes(1, 2) * x.shape[-1] ** -0.5
    a = np.exp(scores - scores.real.max(-1, keepdims=True))
    a /= a.sum(-1, keepdims=True)
    return x + (a @ v).reshape(x.shape), (q, k, v, a, of_qkv)


def attention_backward(dy, saved):
    """dscores = a (da - sum(da a)) is the softmax's."""
    q, k, v, a, of_qkv = saved
    da = dy.reshape(q.shape) @ v.swapaxes(1, 2)
    dscores = a * (da - (da * a).sum(-1, keepdims=True)) * q.shape[-1] ** -0.5
    dq, dk, dv = dscores @ k, dscores.swapaxes(1, 2) @ q, a.swapaxes(1, 2) @ dy.reshape(q.shape)
    dx, g = linear_backward(np.concatenate([dq, dk, dv], -1), of_qkv)
    return dy + dx.reshape(dy.shape), g


def block(x, e, p, s, n):
    """Residual block number n: norm, SiLU, conv, plus the time's embedding e; norm, SiLU, conv, plus x."""
    h, s[n, "norm1"] = norm_silu(x, **p[n, "norm1"])
    h, s[n, "conv1"] = conv(h, **p[n, "conv1"])
    shift, s[n, "time"] = linear(e, **p[n, "time"])
    h, s[n, "norm2"] = norm_silu(h + shift[:, None, None], **p[n, "norm2"])
    h, s[n, "conv2"] = conv(h, **p[n, "conv2"])
    skip, s[n, "skip"] = linear(x, **p[n, "skip"])
    return h + skip


def block_backward(dy, s, g, n):
    dh, g[n, "conv2"] = conv_backward(dy, s[n, "conv2"])
    dh, g[n, "norm2"] = norm_silu_backward(dh, s[n, "norm2"])
    _, g[n, "time"] = linear_backward(dh.sum((1, 2)), s[n, "time"])
    dh, g[n, "conv1"] = conv_backward(dh, s[n, "conv1"])
    dx, g[n, "norm1"] = norm_silu_backward(dh, s[n, "norm1"])
    dskip, g[n, "skip"] = linear_backward(dy, s[n, "skip"])
    return dx + dskip


def unet(x, t, p):
    """eps_hat of x_t: a block, block and attention at half the size, a block that sees the first one's result again."""
    s, angle = {}, t[:, None] * 10000.0 ** (-np.arange(32) / 31)
    e = np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(x.dtype)
    h, s["in"] = conv(x, **p["in"])
    first = block(h, e, p, s, 1)
    h = first.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
    h, s["attention"] = attention(block(h, e, p, s, 2), **p["attention"])
    h = block(np.concatenate([h.repeat(2, 1).repeat(2, 2), first], -1), e, p, s, 3)
    h, s["norm"] = norm_silu(h, **p["norm"])
    y, s["out"] = conv(h, **p["out"])
    return y, s


def unet_backward(dy, s):
    """The lines of `unet` from the last to the first.   -> the gradients, by the names of the parameters"""
    g = {}
    dh, g["out"] = conv_backward(dy, s["out"])
    dh, g["norm"] = norm_silu_backward(dh, s["norm"])
    dh, dfirst = np.split(block_backward(dh, s, g, 3), [CHANNELS[2][1]], -1)
    dh = dh.reshape(len(dy), dy.shape[1] // 2, 2, dy.shape[2] // 2, 2, -1).sum((2, 4))
    dh, g["attention"] = attention_backward(dh, s["attention"])
    dh = block_backward(dh, s, g, 2).repeat(2, 1).repeat(2, 2) / 4 + dfirst
    _, g["in"] = conv_backward(block_backward(dh, s, g, 1), s["in"])
    return g


def initialise(rng):
    """Weights of variance 1 / inputs, but 0 in the last convolution: eps_hat begins as 0.   -> p[name]["w" or "b"]"""
    shapes = {"in": (9, 32), "attention": (64, 192), "norm": (32,), "out": (288, 1)}
    for n, (c, d) in CHANNELS.items():
        shapes |= {(n, "norm1"): (c,), (n, "conv1"): (9 * c, d), (n, "norm2"): (d,), (n, "conv2"): (9 * d, d)}
        shapes |= {(n, "time"): (64, d), (n, "skip"): (c, d)}
    w = {name: rng.standard_normal(c) * c[0] ** -0.5 if len(c) == 2 else np.ones(c) for name, c in shapes.items()}
    return {name: {"w": (v * (name != "out")).astype("f4"), "b": np.zeros(v.shape[-1], "f4")} for name, v in w.items()}


def train(p, x, steps, rng, rate=1e-3, batch=64):
    """Algorithm 1, by Adam.   -> the moving average of the parameters"""
    state = {(name, k): [p[name][k].copy(), *np.zeros((2, *p[name][k].shape), "f4")] for name in p for k in "wb"}
    for step in range(1, steps + 1):
        x0, t = x[rng.integers(len(x), size=batch)], rng.integers(1, T + 1, batch)
        eps = rng.standard_normal(x0.shape, np.float32)
        eps_hat, saved = unet(q_sample(x0, t, eps), t, p)
        g = unet_backward(2 / eps.size * (eps_hat - eps), saved)  # of the mean of (eps - eps_hat)^2, eq. 14
        for (name, k), (average, m, v) in state.items():
            m += 0.1 * (g[name][k] - m)
            v += 0.001 * (g[name][k] ** 2 - v)
            p[name][k] -= rate * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            average += 0.005 * (p[name][k] - average)
        if step % 100 == 0 or step == steps:
            print(f"step {step}: loss {((eps_hat - eps) ** 2).mean():.4f}", flush=True)
    return {name: {k: state[name, k][0] for k in "wb"} for name in p}


def sample(p, n, rng):
    """Algorithm 2: from pure noise back through all T steps."""
    x = rng.standard_normal((n, 8, 8, 1), np.float32)
    for t in range(T, 0, -1):
        x = p_step(x, t, unet(x, np.full(n, t), p)[0], rng.standard_normal(x.shape, np.float32))
    return x


def png(grey):
    """The bytes of a PNG file.   grey (H, W) uint8"""
    head, rows = pack(">2I5B", *grey.shape[::-1], 8, 0, 0, 0, 0), b"".join(b"\0" + row.tobytes() for row in grey)
    parts = (b"IHDR", head), (b"IDAT", compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(pack(">I", len(d)) + k + d + pack(">I", crc32(k + d)) for k, d in parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", default="digits.png")
    options, rng = parser.parse_args(), np.random.default_rng(0)
    digits = np.load(Path(__file__).parents[1] / "refdiff/data/digits.npz")["train"][..., None]
    x = sample(train(initialise(rng), digits.astype("f4") / 8 - 1, options.steps, rng), 64, rng)[..., 0].clip(-1, 1)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-1).reshape(8, 8, 10, 10).swapaxes(1, 2).reshape(80, 80)
    Path(options.out).write_bytes(png((127.5 * (x + 1)).astype(np.uint8).repeat(4, 0).repeat(4, 1)))
