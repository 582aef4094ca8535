"""How many parameters there are, and their first values."""

import networks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.engines import reference as engine
from refdiff.models import (
    MODELS,
    MLPConfig,
    Parameter,
    TableConfig,
    UNetConfig,
    count,
    dtypes,
    flatten,
    initialise,
    layout,
)
from refdiff.models.parameters import conv_layout, linear_layout, norm_layout

seeds = st.integers(0, 2**64 - 1)
SMALL = [
    UNetConfig(8, 1, 8, (1, 2), 1, (4,), groups=4),
    UNetConfig(8, 3, 8, (2, 1), 2, (8, 4), heads=2, groups=2, resampling="pooled", time="adm"),
    MODELS["digits"],
    MODELS["points"],
    MLPConfig(3, 16, 1, "adm"),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", 35_746_307),
        ("celebahq256", 113_673_219),
        ("mnist", 6_469_889),
        ("digits", 701_345),
        ("points", 182_274),
        ("digits-adm", 827_745),
        ("digits-upsampler", 827_745 + 9 * 32),
        ("iddpm-cifar10", 52_546_438),
        ("iddpm-imagenet64", 121_063_942),
        ("adm64", 295_904_454),
        ("adm128", 421_529_606),
        ("adm256", 553_838_086),
        ("adm256-unconditional", 552_814_086),
        ("adm512", 558_997_638),
        ("adm-upsampler256", 311_795_910),
        ("adm-upsampler512", 308_835_270),
        ("adm-classifier64", 65_438_568),
        ("adm-classifier128", 42_568_040),
        ("adm-classifier256", 54_096_360),
        ("adm-classifier512", 54_448_360),
    ],
)
def test_presets_have_exactly_their_parameters(name, expected):
    """Those of [DDPM], [IDDPM] and [ADM] are the numbers of the published networks. Nothing is allocated to count them."""
    assert count(layout(MODELS[name])) == expected


@pytest.mark.parametrize(("name", "dropout"), [("cifar10", 0.1), ("celebahq256", 0.0)])
def test_presets_of_ddpm_have_its_options(name, dropout):
    """What the count does not tell: attention at 16x16 and in the middle, one head, dropout for CIFAR-10 alone."""
    config = MODELS[name]
    assert (config.attention, config.heads, config.groups, config.dropout) == ((16,), 1, 32, dropout)
    assert (config.resampling, config.time) == ("strided", "ddpm")


@pytest.mark.parametrize("config", SMALL)
def test_what_is_allocated_is_what_was_counted(config):
    p = initialise(layout(config), 0)
    assert {name: a.shape for name, a in flatten(p).items()} == {n: s.shape for n, s in flatten(layout(config)).items()}
    assert sum(a.size for a in flatten(p).values()) == count(layout(config))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_layouts(c_in, c_out, k):
    """fan is the mean of what a number of y is the sum of and what a number of x goes into."""
    linear, conv = linear_layout(c_in, c_out), conv_layout(k, c_in, c_out)
    assert linear == {"weight": Parameter((c_in, c_out), fan=(c_in + c_out) / 2), "bias": Parameter((c_out,))}
    assert conv == {
        "weight": Parameter((k, k, c_in, c_out), fan=k**2 * (c_in + c_out) / 2),
        "bias": Parameter((c_out,)),
    }
    assert norm_layout(c_in) == {"weight": Parameter((c_in,), first=1), "bias": Parameter((c_in,))}
    assert linear_layout(c_in, 3 * c_out, parts=3)["weight"] == Parameter((c_in, 3 * c_out), fan=(c_in + c_out) / 2)
    assert linear_layout(c_in, c_out, zero=True)["weight"] == Parameter((c_in, c_out))
    assert conv_layout(k, c_in, c_out, zero=True)["weight"] == Parameter((k, k, c_in, c_out))
    assert count({"a": linear, "b": {"c": conv}}) == (c_in + 1) * c_out + (k * k * c_in + 1) * c_out


def expected_fan(name, shape, zero):
    """0 for what begins as a constant, else (fan_in + fan_out) / 2, from the name and shape alone."""
    *path, last = name.split("/")
    if last == "bias" or "norm" in path[-1] or any(name.endswith(f"{z}/weight") for z in zero):
        return 0
    parts = 3 if path[-1] == "qkv" else 1
    return np.prod(shape[:-2]) * (shape[-2] + shape[-1] / parts) / 2


@pytest.mark.parametrize("config", SMALL)
def test_first_values(config):
    """Weights uniform with variance 1 / fan, norms 1, biases 0, and 0 where a residual branch and the network end.

    The mean of n squares of uniform numbers of variance s^2 has the standard error s^2 sqrt(0.8 / n).
    """
    zero = ("conv2", "projection", "conv_out") if isinstance(config, UNetConfig) else ("linear2", "linear_out")
    own = layout(config)
    for name, a in flatten(initialise(own, 7)).items():
        # The second layer of the time embedding bears the name of the branch's last and is no such thing.
        fan = expected_fan(name, a.shape, [] if name.startswith("time/") else zero)
        if fan:
            scale = (1 / (a.size * fan)) ** 0.5
            assert abs(a.mean()) <= 5 * scale, name
            assert abs((a.astype(np.float64) ** 2).mean() - 1 / fan) <= 5 * (0.8 / a.size) ** 0.5 / fan, name
            assert np.abs(a).max() <= (3 / fan) ** 0.5 * (1 + 1e-6), name
            assert len(np.unique(a)) > 0.9 * a.size, name
        else:
            assert np.all(a == (1 if name.split("/")[-2].startswith("norm") and name.endswith("weight") else 0)), name


@pytest.mark.parametrize("config", SMALL)
def test_the_first_prediction_is_exactly_zero(config):
    """So the first loss is E[eps^2] = 1, whatever the seed."""
    rng = np.random.default_rng(0)
    p = initialise(layout(config), 3)
    x = rng.standard_normal((2, *config.shape)).astype(np.float32)
    y, _ = networks.forward(engine, config, p, x, np.array([1, 900]))
    assert y.dtype == np.float32
    assert y.shape == x.shape
    assert not y.any()


def test_what_a_parameter_is_computed_with():
    """Matrices and filters in the network's type, but for those that keep float32; vectors in float32."""
    own = {"a": linear_layout(3, 4), "b": {"c": conv_layout(3, 2, 2)}, "d": Parameter((4, 5), keep_float32=True)}
    expected = {
        "a/weight": "bfloat16",
        "a/bias": "float32",
        "b/c/weight": "bfloat16",
        "b/c/bias": "float32",
        "d": "float32",
    }
    assert dtypes(own, "bfloat16") == expected
    assert set(dtypes(own, "float32").values()) == {"float32"}
    assert dtypes(layout(TableConfig(1, 2)), "bfloat16") == {"weight": "float32"}


@given(seeds, st.sampled_from([np.float32, np.float64]))
def test_a_seed_gives_the_same_values_and_another_seed_others(seed, dtype):
    own = {"a": linear_layout(3, 4), "b": {"c": conv_layout(3, 2, 2), "d": norm_layout(4)}}
    first, again, other = (flatten(initialise(own, s, dtype=dtype)) for s in (seed, seed, seed ^ 1))
    for name, a in first.items():
        assert a.dtype == dtype
        assert a.tobytes() == again[name].tobytes()
        assert a.flags.writeable
        if a.ndim > 1:
            assert not np.any(a == other[name])
    in_float64 = flatten(initialise(own, seed, dtype=np.float64))
    assert all(np.array_equal(a, in_float64[name].astype(dtype)) for name, a in first.items())


@given(seeds)
def test_the_numbers_of_a_parameter_depend_on_its_place_alone(seed):
    """Network and path: not on the parameters before it; and two parameters of one shape, in one network or in two, have
    nothing to do with each other."""
    small, large = ({"first": linear_layout(n, n), "second": linear_layout(40, 50)} for n in (2, 30))
    a, b = initialise(small, seed)["second"]["weight"], initialise(large, seed)["second"]["weight"]
    assert np.array_equal(a, b)
    layout = {"one": linear_layout(40, 50), "two": linear_layout(40, 50)}
    twins, other = initialise(layout, seed), initialise(layout, seed, "text")
    u = twins["one"]["weight"]
    for v in (twins["two"]["weight"], other["one"]["weight"]):
        assert abs(np.corrcoef(u.ravel(), v.ravel())[0, 1]) <= 5 / u.size**0.5


def test_first_values_may_be_given():
    first = np.array([0.05, 0.1, 0.9])
    p = initialise({"beta": Parameter((3,), first), "row": Parameter((2, 2), 7.0)}, 0, dtype=np.float64)
    assert np.array_equal(p["beta"], first)
    assert p["beta"] is not first
    assert np.array_equal(p["row"], np.full((2, 2), 7.0))


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_seed_must_fit(seed):
    with pytest.raises(ValueError, match="seed: expected an integer"):
        initialise(layout(MODELS["points"]), seed)
