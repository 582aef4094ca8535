"""examples/ddpm.py is DDPM, by the library's own measures: its schedule, its steps and each of its gradients."""

import ast
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refdiff import process
from refdiff.testing.derivatives import check_backward

FILE = Path(__file__).parents[2] / "examples" / "ddpm.py"


@pytest.fixture(scope="module")
def ddpm():
    spec = importlib.util.spec_from_file_location("ddpm", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_and_needs_numpy_alone():
    tree = ast.parse(FILE.read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert len(FILE.read_text().splitlines()) <= 200
    assert imported - sys.stdlib_module_names == {"numpy"}


def test_its_schedule_and_its_steps_are_the_librarys(ddpm):
    schedule, rng = process.linear(1000), np.random.default_rng(0)
    assert np.allclose(ddpm.beta, schedule.beta, rtol=1e-14, atol=0)
    assert np.allclose(ddpm.alpha_bar, schedule.alpha_bar, rtol=1e-12, atol=0)
    x, eps, z = rng.standard_normal((3, 4, 8, 8, 1))
    t = np.array([1, 2, 500, 1000])
    assert np.allclose(ddpm.q_sample(x, t, eps), process.q_sample(schedule, x, t, eps), rtol=1e-12, atol=1e-14)
    for t in (1, 2, 500, 1000):
        x0_hat = process.x0_from_eps(schedule, x, t, eps)
        expected = process.ancestral_step(schedule, x, t, t - 1, x0_hat, z, process.step_variance)
        assert np.allclose(ddpm.p_step(x, t, eps, z), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (1, 4, 6, 1)])
def test_its_gradients_are_those_of_a_complex_step(ddpm, shape):
    rng = np.random.default_rng(1)
    p = {
        name: {k: v + 0.1 * rng.standard_normal(v.shape) for k, v in w.items()}
        for name, w in ddpm.initialise(rng).items()
    }
    x, t = rng.standard_normal(shape), rng.integers(1, 1001, shape[0])
    names = {str(name): name for name in p}

    def forward(q):
        return ddpm.unet(x, t, {name: q[key] for key, name in names.items()})

    def backward(dy, saved):
        g = ddpm.unet_backward(dy, saved)
        assert g.keys() == p.keys()
        return {key: g[name] for key, name in names.items()}

    check_backward(forward, backward, ({key: p[name] for key, name in names.items()},), rng, 1e-12)


def test_its_loss_falls_and_its_samples_are_the_same_again(ddpm, capsys, monkeypatch):
    x = np.random.default_rng(2).choice([-1.0, 1.0], (64, 8, 8, 1)).astype(np.float32)
    first, again = (ddpm.train(ddpm.initialise(rng), x, 20, rng, batch=8) for rng in map(np.random.default_rng, (3, 3)))
    said = capsys.readouterr().out.split()
    assert float(said[said.index("loss") + 1]) < 0.95  # it begins at 1, the variance of eps
    assert all(np.array_equal(first[name][k], again[name][k]) for name in first for k in "wb")
    assert all(a.dtype == np.float32 for w in first.values() for a in w.values())
    monkeypatch.setattr(ddpm, "T", 20)
    images = ddpm.sample(first, 2, np.random.default_rng(4))
    assert images.dtype == np.float32
    assert np.isfinite(images).all()


def test_its_picture_is_a_png(ddpm, tmp_path):
    grey = np.random.default_rng(5).integers(0, 256, (6, 9)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(ddpm.png(grey))
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), grey)
