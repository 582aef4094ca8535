"""Claims about the blocks of a network: what resamples inside a residual block, what a mean token asks the pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ...engines import reference
from ...models import Tree, blocks, tree_map
from ..claim import claim
from ..measures import relative_error
from ..strategies import seeds


def _drawn(layout: Tree, rng: np.random.Generator) -> Tree:
    return tree_map(lambda p: rng.standard_normal(p.shape) / max(1, p.shape[0]) ** 0.5, layout)


@claim(
    r"y = \mathrm{resample}(x) + f\big(\mathrm{resample}(\mathrm{silu}(\mathrm{norm}(x)))\big)",
    source="[BigGAN], [ADM] section 3", of=blocks.residual, bound=1e-12,
    against="the same block of a larger or smaller image whose pixels agree", seed=seeds(),
    size=st.sampled_from([2, 4, 6]), scale_shift=st.booleans(), examples=30,
)  # fmt: skip
def a_block_that_resamples_does_so_behind_its_first_norm(seed: int, size: int, scale_shift: bool) -> float:
    """Of an image whose 2x2 blocks are constant, halving is the plain block of the image half as large: the norm sees the
    same values. And what a block adds being zero, halving undoes doubling."""
    rng = np.random.default_rng(seed)
    conditioning = "scale_shift" if scale_shift else "add"
    p = _drawn(blocks.residual_layout(4, 4, 3, conditioning), rng)
    small, emb = rng.standard_normal((2, size, size, 4)), rng.standard_normal((2, 3))
    large, _ = reference.upsample_nearest(small)
    expected, _ = blocks.residual(reference, p, small, emb, 2, conditioning=conditioning)
    halved, _ = blocks.residual(reference, p, large, emb, 2, conditioning=conditioning, resample="down")
    silent = p | {"conv2": tree_map(np.zeros_like, p["conv2"])}
    doubled, _ = blocks.residual(reference, silent, small, emb, 2, conditioning=conditioning, resample="up")
    back, _ = blocks.residual(reference, silent, doubled, emb, 2, conditioning=conditioning, resample="down")
    return max(relative_error(halved, expected), relative_error(doubled, large), relative_error(back, small))


@claim(
    r"y = W_o\, \mathrm{Attention}\big(W_q \tau_0,\ W_k [\tau_0, \tau_1, \ldots],\ W_v [\tau_0, \tau_1, \ldots]\big),\quad"
    r" \tau_0 = \tfrac1L \textstyle\sum_l x_l + p_0,\ \tau_l = x_l + p_l",
    source="[CLIP], [ADM] section 4", of=blocks.attention_pool, bound=1e-12,
    against="one projection of all tokens, each of which asks all, of whose answers the first is kept", seed=seeds(),
    heads=st.sampled_from([1, 2, 4]), size=st.tuples(st.integers(1, 4), st.integers(1, 4)), examples=30,
)  # fmt: skip
def attention_pooling_asks_for_the_mean_alone(seed: int, heads: int, size: tuple[int, int]) -> float:
    """What the other tokens would ask is nowhere read and not computed: q is a product of the mean token alone."""
    rng, pixels = np.random.default_rng(seed), size[0] * size[1]
    p = _drawn(blocks.attention_pool_layout(8, pixels, 5), rng)
    x = rng.standard_normal((2, *size, 8))
    y, _ = blocks.attention_pool(reference, p, x, heads)
    rows = x.reshape(2, pixels, 8)
    tokens = np.concatenate([rows.mean(axis=1, keepdims=True), rows], axis=1)
    tokens += np.concatenate([p["mean_position"]["weight"][None], p["position"]["weight"]])
    weight, bias = (np.concatenate([p["q"][name], p["kv"][name]], axis=-1) for name in ("weight", "bias"))
    q, k, v = np.split(tokens @ weight + bias, 3, axis=-1)
    answers, _ = reference.attention(q, k, v, heads)
    return relative_error(y, answers[:, 0] @ p["projection"]["weight"] + p["projection"]["bias"])
