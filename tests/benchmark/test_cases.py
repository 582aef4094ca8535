"""What is measured, what it needs at least, and how it is shown."""

import json

import numpy as np
import pytest

from refdiff import models
from refdiff.benchmark import markdown, result
from refdiff.benchmark.cases import NETWORKS, draw, label, network, operands, operations, weights
from refdiff.benchmark.counting import floor, operations_of
from refdiff.engines import reference
from refdiff.models import flatten

CONV = {"kind": "operation", "operation": "conv2d", "direction": "forward", "inputs": [[128, 32, 32, 128]],
        "parameters": {"weight": [3, 3, 128, 128], "bias": [128]}, "options": {}, "dtype": "bfloat16", "seed": 0,
        "count": 7}  # fmt: skip


def test_each_operation_of_a_network_with_how_often():
    cases = operations("cifar10", 128, "bfloat16")
    counts = {}
    for case in cases:
        if case["direction"] == "forward":
            counts[case["operation"]] = counts.get(case["operation"], 0) + case["count"]
    layout = flatten(models.layout(NETWORKS["cifar10"]))
    assert counts["conv2d"] == sum(len(spec.shape) == 4 for spec in layout.values())
    assert counts["linear"] == sum(len(spec.shape) == 2 for spec in layout.values())
    assert counts["attention"] == sum(name.endswith("attention/norm/weight") for name in layout)
    assert CONV in cases
    json.dumps(cases)


def test_a_case_runs_on_the_reference():
    """Each case of a small network says all that is needed to run it, and draws nothing that is zero."""
    for case in operations(
        {"size": 4, "channels": 1, "width": 8, "multipliers": [1, 2], "attention": [2], "groups": 4}, 2
    ):
        inputs, parameters, options = operands(case)
        y = getattr(reference, case["operation"])(*inputs, **parameters, **options)
        assert np.all(np.isfinite(y[0] if isinstance(y, tuple) else y))
        assert all(np.count_nonzero(a) > 0.9 * a.size for a in (*inputs, *parameters.values()))
        assert case["operation"] in label(case)


def test_what_is_drawn_depends_on_shape_and_seed_alone():
    assert np.array_equal(draw((3, 5), 1), draw((3, 5), 1))
    assert not np.array_equal(draw((3, 5), 1), draw((3, 5), 2))
    x = draw((1500, 1000), 3)
    assert (x.dtype, x.shape) == (np.float32, (1500, 1000))
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    p = flatten(weights(NETWORKS["digits"], 0))
    assert all(np.count_nonzero(leaf) == leaf.size for leaf in p.values())


def test_the_floors_of_the_design():
    """The table of KERNELS: 39 GFLOP, 48 µs of arithmetic and 22 of memory at 798 TFLOP/s and 3 TB/s."""
    count = operations_of(CONV, (128, 32, 32, 128))
    assert count == pytest.approx(38.7e9, rel=0.01)
    assert operations_of({**CONV, "direction": "backward"}, (128, 32, 32, 128)) == 2 * count
    ceilings = {"copy_bytes_per_second": 3e12, "bfloat16_per_second": 798e12}
    moved = 2 * 2 * 128 * 32 * 32 * 128 + 2 * 9 * 128 * 128
    assert floor(moved, count, ceilings, "bfloat16") == pytest.approx(48.5e-6, rel=0.01)
    assert floor(moved, 0, ceilings, "bfloat16") == pytest.approx(22.5e-6, rel=0.01)
    assert floor(moved, count, {}, "bfloat16") is None
    assert floor(moved, count, ceilings, "float32") is None


def test_a_network_that_is_not_known():
    with pytest.raises(ValueError, match="model: expected one of digits"):
        network("cifar100")


def test_the_table_is_made_from_the_json():
    record = {
        "case": CONV, "subject": "ours", "floor": 50e-6, "threads": 1,
        "peers": {"torch": {"seconds": 80e-6}, "ours": {"seconds": 100e-6, "difference": 1e-3, "memory": 3 << 20},
                  "other": {"error": "ended with status 3: bus error"}},
        "ratios": {"torch": {"median": 1.25, "quartiles": [1.2, 1.3], "n": 5}},
    }  # fmt: skip
    odd = {
        "case": CONV,
        "subject": "ours",
        "peers": {"ours": {"seconds": 2e-3, "wrong": "y: not finite"}},
        "ratios": {},
    }
    found = result("try", [record, odd], failures=["a part: TimeoutError: stopped"])
    text = markdown(json.loads(json.dumps(found)))
    assert ("| conv2d 3x3 128x32x32x128 -> 128, bfloat16 | 7 | 100.0 µs | 50.0 µs | 50% | 80.0 µs | 1.25 [1.20, 1.30] | "
            "ours 3 |") in text  # fmt: skip
    assert "other: ended with status 3: bus error" in text
    assert "2.00 ms !" in text
    assert "Timed, and wrong (!):\n\n- conv2d 3x3 128x32x32x128 -> 128, bfloat16: ours: y: not finite\n" in text
    assert "- a part: TimeoutError: stopped" in text
    assert "operations, 1 thread**" in text
    assert found["versions"]["numpy"] in text
    assert markdown(result("empty", []))
