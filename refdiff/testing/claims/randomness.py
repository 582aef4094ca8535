"""Claims about the random numbers: the generator's published answers, its inverse, the distributions made of its words."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
from hypothesis import strategies as st

from ...models import initialise
from ...models.parameters import conv_layout, linear_layout
from ...process.gaussian_mass import scaled_tail
from ...random import Sequence, bits, normal, philox
from ..claim import claim
from ..measures import relative_error
from ..strategies import seeds

words: Any = st.integers(0, (1 << 32) - 1)
ONES = 0xFFFFFFFF

# The known answers that the authors' library Random123 is tested with: counter, key, the four words.
ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
)  # fmt: skip


@claim(
    r"(c_0, c_1, c_2, c_3) \mapsto (\lfloor M_1 c_2 / 2^{32} \rfloor \oplus c_1 \oplus k_0,\ M_1 c_2,\ "
    r"\lfloor M_0 c_0 / 2^{32} \rfloor \oplus c_3 \oplus k_1,\ M_0 c_0),\ \text{ten times}",
    source="[Philox] section 3.3", of=philox, against="the known answers of its authors' library", bound=0.0, examples=1,
)  # fmt: skip
def philox_gives_the_published_answers() -> float:
    """How many of the twelve words differ."""
    return float(sum((philox(np.array(c), k) != np.array(w, np.uint32)).sum() for c, k, w in ANSWERS))


@claim(
    r"c = \phi_k^{-1}(\phi_k(c))",
    source="[Philox] section 3.3", of=philox, against="its rounds undone on whole numbers, the last key first", bound=0.0,
    counter=st.tuples(words, words, words, words), key=st.tuples(words, words),
)  # fmt: skip
def philox_can_be_undone(counter: tuple[int, ...], key: tuple[int, int]) -> float:
    """Each round is one to one, since its multipliers are odd and have inverses modulo 2^32: so no two counters share their
    words. How many of the four words of the counter do not come back."""
    m0, m1, low = 0xD2511F53, 0xCD9E8D57, 1 << 32
    c = [int(word) for word in philox(np.array(counter), key)]
    for r in reversed(range(10)):
        k0, k1 = (key[0] + r * 0x9E3779B9) % low, (key[1] + r * 0xBB67AE85) % low
        c0, c2 = c[3] * pow(m0, -1, low) % low, c[1] * pow(m1, -1, low) % low
        c = [c0, c[0] ^ m1 * c2 // low ^ k0, c2, c[2] ^ m0 * c0 // low ^ k1]
    return float(sum(a != b for a, b in zip(c, counter, strict=True)))


@claim(
    r"z_0 = \sqrt{-2 \ln u}\, \cos 2\pi v,\qquad z_1 = \sqrt{-2 \ln u}\, \sin 2\pi v",
    source="[BoxMuller]", of=normal, against="50-digit arithmetic on the words themselves", bound=2e-15, seed=seeds(64),
    sample_id=words, count=st.integers(1, 9),
)  # fmt: skip
def two_words_make_two_normal_numbers(seed: int, sample_id: int, count: int) -> float:
    """u = (word + 1/2) / 2^32, so it is never 0; relative to the radius."""
    key = Sequence(seed, 5, 7)
    actual = normal(key, np.array([sample_id]), (count,), np.float64)[0]
    source = bits(key, np.array([sample_id]), 2 * -(-count // 2))[0].tolist()
    expected, radii = [], []
    with mpmath.workdps(50):
        for u, v in zip(source[::2], source[1::2], strict=True):
            radius = mpmath.sqrt(-2 * mpmath.log((u + mpmath.mpf(0.5)) / 2**32))
            angle = 2 * mpmath.pi * (v + mpmath.mpf(0.5)) / 2**32
            expected += [float(radius * mpmath.cos(angle)), float(radius * mpmath.sin(angle))]
            radii += [float(radius)] * 2
    return relative_error(actual, expected[:count], radii[:count])


@claim(
    r"\sup_x |F_n(x) - \Phi(x)| \sim n^{-1/2} K,\qquad \mathbb E[z_i z_j] = 0",
    source="[BoxMuller]", of=normal, against="the normal distribution function, by Kolmogorov's test", bound=2.5,
    seed=seeds(64), examples=10,
)  # fmt: skip
def the_noise_is_normal_and_independent(seed: int) -> float:
    """sqrt(n) times the largest gap of 16384 numbers, 2.5 at most (one in 10^5 is larger); neighbours within a sample, and
    in samples, steps and streams next to each other, are uncorrelated, by the same measure."""
    z = normal(Sequence(seed, 5, 3), np.arange(4096), (4,), np.float64)
    ordered, n = np.sort(z.ravel()), z.size
    cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in ordered])
    gap = max((np.arange(1, n + 1) / n - cdf).max(), (cdf - np.arange(n) / n).max())
    others = [normal(Sequence(seed, s, t), np.arange(4096), (4,), np.float64) for s, t in ((5, 4), (7, 3))]
    pairs = [(z[:, :-1], z[:, 1:]), (z[:-1], z[1:]), *((z, other) for other in others)]
    correlations = [abs((a * b).sum()) / math.sqrt(a.size) for a, b in pairs]
    return float(max(math.sqrt(n) * gap, *(c / 2 for c in correlations)))


@claim(
    r"W \sim U\Big[-\frac{\sqrt 6}{\sqrt{n_j + n_{j+1}}},\ \frac{\sqrt 6}{\sqrt{n_j + n_{j+1}}}\Big]",
    source="[Glorot] eq. 16", of=initialise, against="the uniform distribution on that interval, by Kolmogorov's test",
    bound=2.5, seed=seeds(), k=st.sampled_from([0, 1, 3]), sizes=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    parts=st.integers(1, 3),
)  # fmt: skip
def the_first_weights_have_the_published_range(seed: int, k: int, sizes: tuple[int, int], parts: int) -> float:
    """sqrt(n) times the largest gap. A kxk convolution sees and feeds k^2 times its channels, k = 0 is a linear layer; parts
    that lie side by side, as queries, keys and values do, are drawn as each alone; biases are 0."""
    c_in, c_out = sizes
    layout = conv_layout(k, c_in, c_out) if k else linear_layout(c_in, parts * c_out, parts=parts)
    p: Any = initialise(layout, seed, dtype=np.float64)
    limit = math.sqrt(6) / math.sqrt(max(k, 1) ** 2 * (c_in + c_out))
    ordered = np.sort(p["weight"].ravel()) / limit
    cdf, n = 0.5 + 0.5 * ordered, ordered.size
    if p["bias"].any() or np.abs(ordered).max() > 1:
        return np.inf
    return float(math.sqrt(n) * max((np.arange(1, n + 1) / n - cdf).max(), (cdf - np.arange(n) / n).max()))


@claim(
    r"\mathrm{erfcx}(x) = e^{x^2} \mathrm{erfc}(x) \approx \frac{2 e^{x^2}}{1 + e^{2\pi x / h}} + \frac{2 h x}{\pi}"
    r" \sum_n \frac{e^{-u_n^2}}{u_n^2 + x^2},\quad u_n = (n + \tfrac12) h",
    source="[Erfc]", of=scaled_tail, against="50-digit arithmetic", bound=4e-15, seed=seeds(),
    size=st.sampled_from([0.1, 1.0, 7.0, 1e3, 1e100]),
)  # fmt: skip
def the_scaled_tail_of_the_normal_distribution_is_exact(seed: int, size: float) -> float:
    """Each value relative to itself, from x = 0 to where erfc itself is far below the smallest number."""
    x = size * np.random.default_rng(seed).random(20)
    with mpmath.workdps(50):
        exact = [
            1 / (mpmath.sqrt(mpmath.pi) * a) if a > 1e30 else mpmath.exp(a**2) * mpmath.erfc(a)
            for a in map(mpmath.mpf, x)
        ]
        expected = np.array([float(e) for e in exact])
    return float(np.max(np.abs(scaled_tail(x) / expected - 1)))
