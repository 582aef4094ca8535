"""The whole of process on arrays of other libraries, and the little that it asks of an array."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.linalg import norm

import refdiff
from refdiff import process
from refdiff.process import (
    CONVERSIONS,
    PREDICTIONS,
    ancestral,
    convert,
    ddim,
    final,
    l_simple,
    l_simple_backward,
    learned_log_variance,
    linear,
    posterior_mean,
    posterior_mean_from_eps,
    predictor,
    q_between,
    q_moments,
    q_sample,
    q_step,
    target,
)
from refdiff.process.arrays import like, namespace, steps
from refdiff.testing.strategies import schedules, seeds, shapes

# Everything that takes arrays and times: functions of (schedule, x, y, k, t), k < t.
TIMED = {
    "q_step": lambda schedule, x, y, k, t: q_step(schedule, x, t, y),
    "q_sample": lambda schedule, x, y, k, t: q_sample(schedule, x, t, y),
    "q_between": lambda schedule, x, y, k, t: q_between(schedule, x, k, t, y),
    "mean": lambda schedule, x, y, k, t: q_moments(schedule, x, t)[0],
    "variance": lambda schedule, x, y, k, t: q_moments(schedule, x, t)[1] * x,
    "posterior_mean": lambda schedule, x, y, k, t: posterior_mean(schedule, x, y, t, k),
    "posterior_mean_from_eps": lambda schedule, x, y, k, t: posterior_mean_from_eps(schedule, x, y, t, k),
    "clipped": lambda schedule, x, y, k, t: predictor(schedule, lambda x, t: y, "v", (-1, 1))(x, t)[1],
    **{
        f"{b}_from_{a}": lambda schedule, x, y, k, t, a=a, b=b: convert(schedule, x, t, y, a, b) for a, b in CONVERSIONS
    },
    **{f"target {kind}": lambda schedule, x, y, k, t, a=kind: target(schedule, a, x, y, t) for kind in PREDICTIONS},
}


def half(x, t):
    return x / 2


def along_path(schedule, x, y):
    """Log densities of a path that is drawn with the same noise at every step."""
    path = [q_sample(schedule, x, t, y) for t in range(schedule.T + 1)]
    return process.path_densities(schedule, lambda x, t: (x / 2, x / 4), path)


# And what takes arrays alone, or single times only: functions of (schedule, x, y).
UNTIMED = {
    "l_simple": lambda schedule, x, y: l_simple(x, y)[0],
    "l_simple_backward": lambda schedule, x, y: l_simple_backward(l_simple(x, y)[0], x - y),
    "ancestral": lambda schedule, x, y: final(
        ancestral(schedule, predictor(schedule, half), x, range(1, schedule.T + 1), lambda t: y)
    ),
    "ancestral, learned": lambda schedule, x, y: final(
        ancestral(
            schedule, predictor(schedule, lambda x, t: (x / 2, y / 4)), x, [2, 5, schedule.T], lambda t: y, "learned"
        )
    ),
    "learned_log_variance": lambda schedule, x, y: learned_log_variance(schedule, x, 7, 3)[0],
    "path_densities": lambda schedule, x, y: process.joint_ratio(*along_path(schedule, x, y)[:3]),
    "consistency_terms": lambda schedule, x, y: process.consistency_terms(*along_path(schedule, x, y)[:3]),
    "denoising_terms": lambda schedule, x, y: process.denoising_terms(
        *(along_path(schedule, x, y)[i] for i in (3, 1, 4, 2))
    ),
    "ddim": lambda schedule, x, y: final(
        ddim(schedule, predictor(schedule, half, "x0", (-2, 2)), x, [1, schedule.T], lambda t: y, 0.5)
    ),
}


def same(actual, expected, library):
    """Of the library, and NumPy's values: the same operations in the same order, but another library's sqrt or sum."""
    assert type(actual) is type(library.asarray(0.0))
    actual = np.asarray(actual)
    assert actual.dtype == expected.dtype
    assert actual.shape == np.shape(expected)
    assert norm(actual - expected) <= 8 * np.finfo(expected.dtype).eps * norm(expected)


CASES = [(name, dtype) for name in [*TIMED, *UNTIMED] for dtype in ("float32", "float64", "complex128")]
UNORDERED = [(name, "complex128") for name in ("clipped", "ddim")]  # complex numbers have no order to clip by


@pytest.mark.parametrize(("name", "dtype"), [case for case in CASES if case not in UNORDERED])
def test_arrays_of_any_library_give_what_numpy_gives(library, name, dtype):
    schedule = linear(10, 0.1, 0.4)
    x, y = np.random.default_rng(8).standard_normal((2, 3, 2, 2))
    if dtype == "complex128":
        x, y = x + 0.3j * y, y - 0.7j * x
    x, y = x.astype(dtype), y.astype(dtype)
    here = [library.asarray(v, dtype=getattr(library, dtype)) for v in (x, y)]
    if name in UNTIMED:
        same(UNTIMED[name](schedule, *here), np.asarray(UNTIMED[name](schedule, x, y)), library)
        return
    k, t = np.array([0, 4, 7]), np.array([1, 9, 10])
    expected = TIMED[name](schedule, x, y, k, t)
    same(TIMED[name](schedule, *here, k, t), expected, library)  # times of NumPy
    same(TIMED[name](schedule, *here, library.asarray(k), library.asarray(t)), expected, library)  # and of the library
    same(TIMED[name](schedule, *here, k.tolist(), t.tolist()), expected, library)
    expected = TIMED[name](schedule, x, y, 4, 9)
    for kind in (int, np.int64, library.asarray):
        same(TIMED[name](schedule, *here, kind(4), kind(9)), expected, library)


@given(schedules(), shapes(), seeds(), st.data())
def test_strict_arrays_agree_with_numpy_to_the_last_bit(schedule, shape, seed, data):
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    name = data.draw(st.sampled_from(sorted(TIMED)))
    x, y = np.random.default_rng(seed).standard_normal((2, *shape))
    t = np.random.default_rng(seed).integers(1, schedule.T + 1, shape[0])
    for time in (t, t[0].item()):
        actual = TIMED[name](schedule, strict.asarray(x), strict.asarray(y), time - 1, time)
        assert np.array_equal(np.asarray(actual), TIMED[name](schedule, x, y, time - 1, time))


def test_coefficients_go_to_the_device_of_the_data():
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    device = strict.Device("device1")
    x = strict.asarray(np.random.default_rng(9).standard_normal((2, 3)), device=device)
    for t in (3, np.array([3, 5])):
        assert q_sample(linear(10), x, t, x).device == device
        assert convert(linear(10), x, t, x, "mu", "v").device == device


class Elsewhere:
    """As CuPy's arrays: no way to the host but `get`."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def get(self):
        return self.values

    def __array__(self, *arguments, **options):
        raise TypeError("not without asking")


def test_times_come_to_the_host_when_asked():
    assert steps(Elsewhere([2, 3]), 5).tolist() == [2, 3]
    assert steps(Elsewhere(4), 5) == 4


@given(st.integers(1, 1000), st.integers(0, 1), st.data())
def test_steps_within_the_schedule_pass_and_others_do_not(T, first, data):
    t = data.draw(st.lists(st.sampled_from([-1, 0, 1, T, T + 1]) | st.integers(first, T), max_size=4))
    wrong = [i for i in t if not first <= i <= T]
    if not wrong:
        assert steps(np.array(t, dtype=int), T, first).tolist() == t
        return
    named = min(wrong) if min(wrong) < first else max(wrong)
    with pytest.raises(ValueError, match=f"index: expected integers from {first} to T = {T}, got {named}$"):
        steps(t, T, first, "index")


@pytest.mark.parametrize("t", [True, 1.0, "3", None, [[1]], [1.0], np.array([True]), 1j])
def test_what_is_no_integer_is_no_step(t):
    with pytest.raises(ValueError, match=r"t: expected an integer or one a sample \(N,\), got shape"):
        steps(t, 10)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64, np.complex128])
def test_coefficients_are_cast_once_to_the_datas_dtype(dtype):
    coefficient, x = np.array([1 / 3, 2 / 7]), np.random.default_rng(1).standard_normal((2, 3, 1)).astype(dtype)
    column = like(coefficient, x)
    assert column.dtype == dtype
    assert column.shape == (2, 1, 1)
    assert np.array_equal(column.ravel(), coefficient.astype(dtype))
    assert type(like(coefficient[0], x)) is float
    assert like(coefficient[0], x) == 1 / 3
    assert (like(coefficient[0], x) * x).dtype == dtype
    assert like(np.float64(0.5), x[0, 0, 0]) == 0.5  # NumPy's scalars are arrays too


@pytest.mark.parametrize(
    ("coefficient", "x", "message"),
    [
        (np.float64(0.5), np.array([1, 2]), "data: expected floating-point numbers, got int64; cast them yourself"),
        (np.float64(0.5), np.array([True]), "data: expected floating-point numbers, got bool"),
        (np.array([0.5]), np.array(1.5), r"t: expected one step a sample of data \(\), got \(1,\)"),
        (np.array([0.5, 0.25]), np.array([1.5]), r"t: expected one step a sample of data \(1,\), got \(2,\)"),
        (np.array([0.5]), np.array([1.5, 0.5]), r"t: expected one step a sample of data \(2,\), got \(1,\)"),
        (np.float64(0.5), [1.5], r"expected an array \(NumPy, CuPy, PyTorch, JAX\), got list; use numpy.asarray"),
        (np.float64(0.5), 1.5, "expected an array .* got float; use numpy.asarray"),
        (np.float64(0.5), None, "expected an array .* got NoneType; use numpy.asarray"),
    ],
)
def test_coefficients_refuse_what_they_cannot_multiply(coefficient, x, message):
    with pytest.raises(ValueError, match=message):
        like(coefficient, x, "data")


def test_numpy_serves_numpy_and_another_library_is_asked_for_by_name(monkeypatch):
    assert namespace(np.ones(2)) is np
    assert namespace(np.float32(1)) is np
    strict = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
    assert namespace(strict.asarray([0.5])) is strict
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    assert namespace(np.ones(2)) is np
    with pytest.raises(ImportError, match=r"arrays of array_api_strict.* need array-api-compat.*: pip install"):
        namespace(strict.asarray([0.5]))


NUMPY_ALONE = """
import sys

class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in sys.stdlib_module_names or top.startswith("_sysconfigdata") or top in ("numpy", "refdiff")
        if not known:
            raise ModuleNotFoundError(f"{name} is out of bounds here")

sys.meta_path.insert(0, Guard())
import numpy as np
import refdiff
from refdiff import process, random

s = process.cosine(20)
noise = lambda t: random.normal(random.Sequence(1, 7, t), [0, 1], (3,))
for t in (5, np.array([5, 9])):
    x = process.q_sample(s, noise(1), t, noise(2))
    assert process.convert(s, x, t, noise(3), "v", "mu").dtype == np.float32
predict = process.predictor(s, lambda x, t: x / 2, "x0", (-1, 1))
assert np.isfinite(process.final(process.ddim(s, predict, noise(21), [5, 20]))).all()
process.l_simple(x, noise(4))
"""


def test_importing_refdiff_and_using_its_mathematics_needs_numpy_alone():
    home = str(Path(refdiff.__file__).parents[1])
    ran = subprocess.run([sys.executable, "-c", NUMPY_ALONE], capture_output=True, text=True, env={"PYTHONPATH": home})
    assert ran.returncode == 0, ran.stderr


def test_everything_a_file_exports_is_there_once():
    files = ("exact", "forward", "objectives", "posterior", "predictions", "samplers", "schedules")
    names = [name for file in files for name in getattr(process, file).__all__]
    assert len(names) == len(set(names))
    assert all(hasattr(process, name) for name in names)
