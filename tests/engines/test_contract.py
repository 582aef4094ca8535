"""What holds for the names of an engine as a whole."""

import inspect
from pathlib import Path

import pytest

from refdiff import engines
from refdiff.engines import reference

WITHOUT_BACKWARD = {
    "accumulate", "affine", "antithetic", "antithetic_steps", "array", "bernoulli", "categorical", "columns", "gather",
    "host", "integers", "less", "normal", "stop", "uniform", "where",
}  # fmt: skip
WITHOUT_DX = {"conv2d_backward", "linear_backward"}  # with needs_dx=False: their x may be data
FUNCTIONS = {name: f for name, f in vars(reference).items() if inspect.isfunction(f) and not name.startswith("_")}


def test_each_forward_has_a_backward():
    backwards = {name for name in FUNCTIONS if name.endswith("_backward")}
    forwards = FUNCTIONS.keys() - backwards
    assert {f"{name}_backward" for name in forwards - WITHOUT_BACKWARD} == backwards
    assert forwards >= WITHOUT_BACKWARD


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_operation_is_documented_and_typed(name):
    f = FUNCTIONS[name]
    signature = inspect.signature(f)
    assert len(inspect.getdoc(f) or "") > 10
    assert signature.return_annotation is not signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.endswith("_backward")])
def test_each_backward_takes_the_gradient_and_what_was_saved(name):
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters)
    gradient, saved, *options = parameters
    assert options == (["needs_dx"] if name in WITHOUT_DX else [])
    assert gradient in ("dy", "dys", "dz", "dloss", "dterm")
    assert saved == "saved"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if not name.endswith("_backward")])
def test_each_operation_is_tested_beside_this_file(name):
    here = Path(__file__).parent
    tests = "".join(path.read_text() for path in (*here.glob("test_*.py"), here / "likelihood_cases.py"))
    assert f"engine.{name}(" in tests or f'"{name}"' in tests


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("engine", engines.ENGINES)
def test_every_engine_has_the_references_names_and_signatures(engine, name):
    def parameters(f):
        return [(p.name, p.default, p.kind) for p in inspect.signature(f).parameters.values()]

    assert parameters(getattr(engines.get(engine), name)) == parameters(FUNCTIONS[name])


@pytest.mark.parametrize("engine", ["reference", "cpu"])
def test_no_file_hides_behind_a_function_of_its_name(engine):
    module = engines.get(engine)
    names = [path.stem for path in Path(module.__file__).parent.glob("*.py") if path.stem != "__init__"]
    assert len(names) > 5
    assert [name for name in names if not inspect.ismodule(getattr(module, name, inspect))] == []


def test_auto_is_the_gpu_if_there_is_one_and_the_cpu_if_not(monkeypatch):
    assert engines.resolve("reference") == "reference"
    for gpu, wanted in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(engines, "has_gpu", lambda gpu=gpu: gpu)
        assert engines.resolve("auto") == wanted
        assert engines.get("auto").__name__ == f"refdiff.engines.{wanted}"


def test_get_gives_the_engine_of_a_name():
    assert engines.get("reference") is reference
    for name in engines.ENGINES:
        assert name in engines.__doc__


def test_get_says_what_there_is():
    with pytest.raises(
        ValueError, match=r"engine: expected one of auto, reference.*, got 'referense'; did you mean reference\?"
    ):
        engines.get("referense")
    with pytest.raises(ValueError, match=r"got 'xyzzy'$"):
        engines.get("xyzzy")
