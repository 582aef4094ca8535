"""Philox against its published answers and a second implementation; layout, independence and distribution of the noise."""

import math
import re
import zlib

import numpy as np
import pytest
from helpers import ROOT
from hypothesis import assume, given
from hypothesis import strategies as st

from refdiff import random
from refdiff.random import (
    Key,
    Sequence,
    bits,
    integers,
    normal,
    permutation,
    philox,
    stream,
    uniform,
    uniform_threshold,
)
from refdiff.testing.strategies import seeds, shapes

words = st.integers(0, 2**32 - 1)


def keys():
    return st.builds(Sequence, seeds(64), words, words, st.just(0))


def indices(max_size=6):
    return st.lists(words, max_size=max_size).map(lambda sample_ids: np.array(sample_ids, dtype=np.int64))


def philox_by_integers(counter, key):
    """Philox 4x32-10 as its paper words it, on Python's integers: split two products, swap, bump the key, ten times."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, answer):
    assert tuple(philox_by_integers(counter, key)) == answer
    assert tuple(philox(counter, key).tolist()) == answer


@given(st.lists(st.tuples(words, words, words, words), min_size=1, max_size=5), words, words)
def test_philox_is_the_papers_algorithm_on_any_counter_and_key(counters, low, high):
    actual = philox(np.array(counters).T, (low, high))
    assert actual.dtype == np.uint32
    assert actual.T.tolist() == [philox_by_integers(c, (low, high)) for c in counters]


@given(keys(), indices(), st.integers(0, 19))
def test_element_e_of_sample_i_is_word_e_mod_4_of_the_counter_that_names_it(key, sample_ids, count):
    actual = bits(key, sample_ids, count)
    assert actual.shape == (len(sample_ids), count)
    assert actual.dtype == np.uint32
    seed = (key.seed % 2**32, key.seed // 2**32)
    for i, row in zip(sample_ids.tolist(), actual.tolist(), strict=True):
        assert row == [philox_by_integers((e // 4, i, key.step, key.stream), seed)[e % 4] for e in range(count)]


@given(keys(), indices(), shapes(min_dims=0, max_dims=3))
def test_uniform_and_normal_are_their_formulas_of_the_words(key, sample_ids, shape):
    count = math.prod(shape)
    actual, gauss = uniform(key, sample_ids, shape), normal(key, sample_ids, shape, np.float64)
    assert actual.shape == gauss.shape == (len(sample_ids), *shape)
    assert actual.dtype == gauss.dtype == np.float64
    u = (2.0 * bits(key, sample_ids, count + count % 2) + 1) / 2**33
    assert np.array_equal(actual.reshape(len(sample_ids), count), u[:, :count])
    z = np.sqrt(-2 * np.log(u[:, ::2])) * np.exp(2j * np.pi * u[:, 1::2])  # radius and angle
    z = np.stack([z.real, z.imag], axis=-1).reshape(len(sample_ids), count + count % 2)[:, :count]
    assert np.all(abs(gauss.reshape(len(sample_ids), count) - z) <= 1e-14)


@pytest.mark.parametrize("draw", [uniform, normal])
@given(keys(), indices(8), shapes(min_dims=0, max_dims=3), st.integers(0, 8))
def test_numbers_do_not_depend_on_how_samples_are_spread_over_batches(draw, key, sample_ids, shape, cut):
    whole = draw(key, sample_ids, shape)
    assert np.array_equal(
        np.concatenate([draw(key, sample_ids[:cut], shape), draw(key, sample_ids[cut:], shape)]), whole
    )
    assert np.array_equal(draw(key, sample_ids[::-1], shape), whole[::-1])


@pytest.mark.parametrize("draw", [uniform, normal, bits])
@given(keys(), indices(3), st.integers(0, 20), st.integers(0, 20))
def test_asking_for_fewer_elements_gives_the_same_first_ones(draw, key, sample_ids, fewer, more):
    fewer, more = sorted((fewer, more))
    short, long = (n if draw is bits else (n,) for n in (fewer, more))
    assert np.array_equal(draw(key, sample_ids, short), draw(key, sample_ids, long)[:, :fewer])


@given(keys(), st.integers(0, 2**32 - 9), st.integers(0, 8), st.integers(0, 9))
def test_a_key_that_begins_with_sample_k_counts_the_samples_from_there(key, first, n, count):
    place = np.arange(n)
    assert np.array_equal(bits(key._replace(first=first), place, count), bits(key, first + place, count))


@given(keys(), st.integers(0, 2**32 - 9), shapes(min_dims=0, max_dims=2))
def test_every_draw_begins_with_the_keys_first_sample(key, first, shape):
    part, place = key._replace(first=first), np.arange(5)
    for draw in (uniform, normal):
        assert np.array_equal(draw(part, place, shape), draw(key, first + place, shape))
    assert np.array_equal(integers(part, place, 1, 1000), integers(key, first + place, 1, 1000))


@given(keys(), shapes(min_dims=1, max_dims=3))
def test_a_shape_only_arranges_the_elements(key, shape):
    flat = normal(key, [3, 4], (math.prod(shape),))
    assert np.array_equal(normal(key, [3, 4], shape), flat.reshape(2, *shape))


@given(keys(), keys())
def test_another_seed_stream_step_or_sample_gives_other_words(key, other):
    assume(key != other)
    assert not np.array_equal(bits(key, [0], 8), bits(other, [0], 8))
    assert not np.array_equal(bits(key, [0], 8), bits(key, [1], 8))


@given(keys())
def test_changing_one_field_alone_changes_the_words(key):
    reference = bits(key, [5], 8)
    for other in (
        key._replace(seed=key.seed ^ 1),
        key._replace(seed=key.seed ^ (1 << 63)),
        key._replace(stream=key.stream ^ 1),
        key._replace(step=key.step ^ 1),
        key._replace(stream=key.step, step=key.stream) if key.stream != key.step else key._replace(step=key.step ^ 2),
    ):
        assert not np.array_equal(bits(other, [5], 8), reference)


def test_no_two_names_of_the_library_share_a_stream():
    names = set()
    for path in (ROOT / "refdiff").rglob("*.py"):
        names |= set(re.findall(r'\b(?:key|Key\([^)]*\)|under\("\w+"\))\("([^"{}]+)"\)', path.read_text()))
    assert {"t", "eps", "start", "step", "order", "flip"} <= names
    assert len({stream(name) for name in names}) == len(names)


def test_numpy_integers_name_the_same_numbers_as_pythons():
    plain = normal(Sequence(2**63 + 5, 3, 7), [1, 2], (3,))
    assert np.array_equal(
        normal(Sequence(np.uint64(2**63 + 5), np.uint8(3), np.int64(7)), np.uint8([1, 2]), (3,)), plain
    )
    assert np.array_equal(normal(Sequence(2**63 + 5, 3, 7), range(1, 3), (3,)), plain)


@pytest.mark.parametrize("word", [0, 1, 2**31, ONES - 1, ONES])
def test_uniform_excludes_both_ends_even_for_the_extreme_words(monkeypatch, word):
    monkeypatch.setattr(random, "philox", lambda counter, key: np.full(np.shape(counter), word, np.uint32))
    u = uniform(Sequence(1, 1), [0], (4,))
    assert np.all((u > 0) & (u < 1))
    assert np.all(u == (2 * word + 1) / 2**33)
    assert np.all(abs(normal(Sequence(1, 1), [0], (4,))) < 6.77)
    assert integers(Sequence(1, 1), [0], -3, 2).tolist() == [-3 + word * 6 // 2**32]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex128])
def test_numbers_are_computed_in_float64_and_cast_once(dtype):
    sample_ids = np.arange(50)
    for draw in (uniform, normal):
        actual = draw(Sequence(7, 5), sample_ids, (3,), dtype)
        assert actual.dtype == dtype
        assert np.array_equal(actual, draw(Sequence(7, 5), sample_ids, (3,), np.float64).astype(dtype))
    assert normal(Sequence(7, 5), sample_ids).dtype == np.float32


def kolmogorov_smirnov(samples, cdf):
    """sqrt(n) times the largest distance of the samples' distribution from cdf; above 1.95 once in a thousand."""
    samples = np.sort(samples.ravel())
    n, expected = samples.size, cdf(samples)
    return np.sqrt(n) * max(np.max(np.arange(1, n + 1) / n - expected), np.max(expected - np.arange(n) / n))


def test_uniform_numbers_are_uniform():
    u = uniform(Sequence(11, 2), np.arange(1000), (100,))
    for power in (1, 2, 3, 4):
        moment, variance = 1 / (power + 1), 1 / (2 * power + 1) - 1 / (power + 1) ** 2
        assert abs(np.mean(u**power) - moment) <= 4 * np.sqrt(variance / u.size)
    assert kolmogorov_smirnov(u, lambda x: x) <= 1.95


def test_normal_numbers_are_normal():
    z = normal(Sequence(12, 5), np.arange(1000), (100,), np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(z**power) - moment) <= 4 * np.sqrt(variance / z.size)
    assert kolmogorov_smirnov(z, np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))) <= 1.95


def test_neighbouring_elements_samples_steps_and_streams_are_uncorrelated():
    z = np.stack([normal(Sequence(13, stream, step), range(50), (50,)) for stream in (4, 5) for step in (0, 1)])
    neighbours = [(z[:, :, 1:], z[:, :, :-1]), (z[:, 1:], z[:, :-1]), (z[1:], z[:-1]), (z[2:], z[:2])]
    for a, b in neighbours:
        for power in (1, 2):  # the squares too: a Box-Muller pair shares its radius
            u, v = (x.astype(float) ** power - (power - 1) for x in (a, b))
            assert abs(np.mean(u * v)) <= 4 * power / np.sqrt(a.size)


@given(keys(), st.integers(-(2**40), 2**40), st.integers(1, 2**32))
def test_integers_lie_within_their_bounds_and_follow_the_words(key, low, count):
    sample_ids = np.arange(20)
    actual = integers(key, sample_ids, low, low + count - 1)
    assert actual.shape == (20,)
    assert actual.dtype == np.int64
    assert actual.tolist() == [low + word * count // 2**32 for word in bits(key, sample_ids, 1)[:, 0].tolist()]
    assert low <= actual.min() <= actual.max() <= low + count - 1


def test_integers_are_uniform_and_reach_both_bounds():
    n = 60_000
    values, counts = np.unique(integers(Sequence(14, 4), np.arange(n), 1, 10), return_counts=True)
    assert values.tolist() == list(range(1, 11))
    assert np.sum((counts - n / 10) ** 2 / (n / 10)) <= 27.9  # chi-squared of 9 degrees: above once in a thousand


@given(keys(), st.integers(0, 200))
def test_a_permutation_holds_every_number_once(key, n):
    actual = permutation(key, n)
    assert actual.dtype == np.int64
    assert sorted(actual.tolist()) == list(range(n))


def test_permutations_are_uniform_and_change_with_the_step():
    orders = [tuple(permutation(Sequence(15, 3, step), 3).tolist()) for step in range(1200)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.sum((counts - 200) ** 2 / 200) <= 20.6  # chi-squared of 5 degrees: above once in a thousand


def test_equal_words_are_ordered_by_place(monkeypatch):
    monkeypatch.setattr(random, "bits", lambda key, sample_ids, count: np.array([[2], [1], [2], [1]] * 25, np.uint32))
    assert permutation(Sequence(1, 1), 100).tolist() == [i for i in range(100) if i % 2] + list(range(0, 100, 2))


@pytest.mark.parametrize("draw", [uniform, normal])
def test_no_samples_and_no_elements_give_empty_arrays(draw):
    none = np.zeros(0, dtype=int)
    assert draw(Sequence(1, 1), none, (3, 2)).shape == (0, 3, 2)
    assert draw(Sequence(1, 1), none).shape == (0,)
    assert draw(Sequence(1, 1), [0, 1], (0,)).shape == (2, 0)
    assert draw(Sequence(1, 1), none, (0, 3)).shape == (0, 0, 3)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: uniform(Sequence(-1, 1), [0]), r"seed: expected an integer from 0 to 2\^64 - 1, got -1"),
        (
            lambda: uniform(Sequence(2**64, 1), [0]),
            r"seed: expected an integer from 0 to 2\^64 - 1, got 18446744073709551616",
        ),
        (lambda: uniform(Sequence(1.5, 1), [0]), "seed: expected an integer .* got 1.5"),
        (lambda: uniform(Sequence(1, -1), [0]), r"stream: expected an integer from 0 to 2\^32 - 1, got -1"),
        (lambda: uniform(Sequence(1, 2**32), [0]), r"stream: expected an integer from 0 to 2\^32 - 1, got 4294967296"),
        (lambda: uniform(Sequence(1, 1, -1), [0]), r"step: expected an integer from 0 to 2\^32 - 1, got -1"),
        (lambda: uniform(Sequence(1, 1, 2**32), [0]), r"step: expected an integer from 0 to 2\^32 - 1, got 4294967296"),
        (lambda: uniform(Sequence(1, 1, 1.5), [0]), "step: expected an integer .* got 1.5"),
        (lambda: uniform(Sequence(1, 1, 1, -1), [0]), r"first: expected an integer from 0 to 2\^32 - 1, got -1"),
        (
            lambda: uniform(Sequence(1, 1, 1, 2**32), [0]),
            r"first: expected an integer from 0 to 2\^32 - 1, got 4294967296",
        ),
        (lambda: uniform(Sequence(1, 1, 1, 1.5), [0]), "first: expected an integer .* got 1.5"),
        (lambda: uniform(Sequence(1, 1, 1, 2**32 - 1), [0, 1]), "sample_ids: expected a 1-D array of integers"),
        (lambda: normal(Sequence(1, 1), 0), r"sample_ids: expected a 1-D array of integers .* got shape \(\)"),
        (lambda: normal(Sequence(1, 1), [[0]]), r"sample_ids: expected a 1-D array of integers .* got shape \(1, 1\)"),
        (lambda: normal(Sequence(1, 1), [0.0]), "sample_ids: expected a 1-D array of integers .* dtype float64"),
        (lambda: normal(Sequence(1, 1), [True]), "sample_ids: expected a 1-D array of integers .* dtype bool"),
        (lambda: normal(Sequence(1, 1), [3, -1]), "sample_ids: expected a 1-D array of integers"),
        (lambda: normal(Sequence(1, 1), [3, 2**32]), "sample_ids: expected a 1-D array of integers"),
        (
            lambda: integers(Sequence(1, 1), [0], 1, 0),
            r"high: expected low <= high < low \+ 2\^32, got low = 1, high = 0",
        ),
        (lambda: integers(Sequence(1, 1), [0], 0, 2**32), "high: expected low <= high .* high = 4294967296"),
        (lambda: permutation(Sequence(-1, 1), 3), "seed: expected an integer"),
    ],
)
def test_what_names_no_numbers_is_refused_by_name(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


@given(st.integers(0, 2**32 - 1), st.sampled_from([-1, 0, 1]))
def test_the_uniform_threshold_is_the_first_whose_uniform_number_exceeds_the_rate(word, off):
    rate = (word + 0.5) * 2.0**-32 + off * 2.0**-40  # on the number of a word, and right beside it
    threshold = uniform_threshold(rate)
    assert (threshold + 0.5) * 2.0**-32 > rate
    assert not (threshold - 0.5) * 2.0**-32 > rate


def test_the_uniform_thresholds_of_the_ends():
    assert uniform_threshold(0.0) == 0
    assert uniform_threshold(1.0) == 1 << 32


def test_a_key_names_sequences_of_their_own():
    key = Key(7, 3, 16, 64)
    assert key("eps") == Sequence(7, zlib.crc32(b"eps") | 1 << 31, 3, 16)
    assert key.under("Denoising").under("text")("eps") == Sequence(
        7, zlib.crc32(b"Denoising/text/eps") | 1 << 31, 3, 16
    )
    streams = [stream(name) for name in ("eps", "t", "a/eps", "b/eps", "")]
    assert len(set(streams)) == len(streams)
    assert all(1 << 31 <= s < 1 << 32 for s in streams)
