"""The arrows between rooms point one way, and a breach of each kind is found, in a small package made for it."""

import json
from itertools import pairwise

import pytest
from helpers import ROOT

from refdiff.testing import imports
from refdiff.testing.sources import read

# A house that stands as it should: file -> its source.
HOUSE = {
    "__init__.py": "from . import random",
    "__main__.py": "from .cli import main",
    "cli.py": "from .commands import train",
    "commands.py": "def train():\n    from .training import loop\n    from .benchmark import command",
    "benchmark/__init__.py": "",
    "benchmark/command.py": "from ..testing import claim",
    "testing/__init__.py": "",
    "testing/claim.py": "from house.engines.cpu.runtime import memory",
    "training/__init__.py": "from .loop import *",
    "training/loop.py": "from ..config import Config\nfrom .. import storage\nfrom ..engines.cpu.runtime.memory import a",
    "config/__init__.py": "from ..objectives import Denoising",
    "storage/__init__.py": "",
    "objectives/__init__.py": "from .. import models",
    "models/__init__.py": "from .unet import *",
    "models/unet.py": "import numpy as np\nfrom ..engines import cpu",
    "engines/__init__.py": "",
    "engines/cpu/__init__.py": "from .ops import *",
    "engines/cpu/ops.py": "from .runtime.memory import empty",
    "engines/cpu/runtime/__init__.py": "",
    "engines/cpu/runtime/memory.py": "from ....random import Key",
    "engines/cuda/__init__.py": "from ..cpu import silu",
    "process/__init__.py": "from ..errors import one_of",
    "random.py": "import json",
    "errors.py": "",
}


@pytest.fixture
def house(tmp_path):
    """house(change) -> the sources of HOUSE with these files changed or added."""

    def build(change):
        for name, source in {**HOUSE, **change}.items():
            path = tmp_path / "house" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{source}\n")
        return read(tmp_path / "house")

    return build


def test_nothing_is_wrong_with_the_arrows_of_this_library():
    sources = read(ROOT / "refdiff")
    assert not imports.wrong(sources)
    arrows = {(i.source, i.target) for i in sources.arrows()}
    assert len(arrows) > 700
    assert {("cli", "commands"), ("commands.runs", "training"), ("refdiff", "process"), ("process.predictions", "errors"),
            ("training.trainers.cpu", "engines.cpu.runtime.data_parallel")} <= arrows  # fmt: skip
    assert "sampling.networks" in {target for source, target in arrows if source == "sampling.run"}


def test_a_house_as_it_should_be_has_nothing_wrong(house):
    assert not imports.wrong(house({}))


@pytest.mark.parametrize(
    ("change", "circle"),
    [
        (
            {"models/unet.py": "from .a import f", "models/a.py": "from . import unet"},
            "models.a -> models.unet -> models.a",
        ),
        ({"models/unet.py": "from . import layout"}, "models -> models.unet -> models"),
        (
            {"models/unet.py": "def f():\n    from .a import g", "models/a.py": "class A:\n    from .unet import f"},
            "models.a -> models.unet -> models.a",
        ),
        (
            {
                "models/a.py": "from . import b",
                "models/b.py": "from .c import x",
                "models/c.py": "import house.models.a",
            },
            "models.a -> models.b -> models.c -> models.a",
        ),
    ],
)
def test_a_circle_is_found_inside_a_room(house, change, circle):
    assert imports.wrong(house(change)) == [f"circle: {circle}; open it"]


@pytest.mark.parametrize(
    ("path", "source", "line", "got"),
    [
        ("random.py", "from .errors import x\nfrom .process import y", 2, "process"),
        ("models/unet.py", "from ..objectives import Denoising", 1, "objectives"),
        ("models/unet.py", "from .. import __version__", 1, "refdiff"),
        ("objectives/__init__.py", "from ..config import Config", 1, "config"),
        ("objectives/__init__.py", "def f():\n    def g():\n        from ..storage import save", 3, "storage"),
        ("process/__init__.py", "from importlib import import_module\nimport_module('house.models')", 2, "models"),
        ("process/__init__.py", "import importlib\nlambda: importlib.import_module('..models', x)", 2, "models"),
        ("training/loop.py", "from ..testing.claim import Claim", 1, "testing.claim"),
        ("training/loop.py", "try:\n    import house.cli as cli\nfinally:\n    pass", 2, "cli"),
        ("testing/claim.py", "from ..benchmark import command", 1, "benchmark.command"),
    ],
)
def test_an_arrow_upwards_is_found(house, path, source, line, got):
    found = [sentence for sentence in imports.wrong(house({path: source})) if not sentence.startswith("circle")]
    room = path.split("/")[0].removesuffix(".py")
    assert found == [f"{path}:{line}: expected imports of rooms below {room}, got {got}, which stands above it"]


def test_an_arrow_to_a_room_beside_is_found(house):
    found = imports.wrong(house({"storage/__init__.py": "from .. import config"}))
    assert found == [
        "storage/__init__.py:1: expected imports of rooms below storage, got config, which stands beside it"
    ]


@pytest.mark.parametrize(
    ("path", "source", "why"),
    [
        (
            "cli.py",
            "from .testing import claim",
            "testing by benchmark and commands alone, got one of testing.claim by cli",
        ),
        (
            "cli.py",
            "from .benchmark import command",
            "benchmark by commands alone, got one of benchmark.command by cli",
        ),
        ("__init__.py", "from .commands import train", "commands by cli alone, got one of commands by refdiff"),
        ("__init__.py", "def f():\n    from . import cli", "cli by __main__ alone, got one of cli by refdiff"),
    ],
)
def test_a_room_that_few_may_import_is_left_to_them(house, path, source, why):
    assert imports.wrong(house({path: source})) == [f"{path}:{source.count(chr(10)) + 1}: expected imports of {why}"]


@pytest.mark.parametrize(
    ("path", "source", "line"),
    [
        ("models/unet.py", "from ..engines.cpu.ops import silu", 1),
        ("testing/claim.py", "from ..engines.cpu import ops", 1),
        ("benchmark/command.py", "def f():\n    import house.engines.cpu.ops as o", 2),
        ("engines/cuda/__init__.py", "from ..cpu.ops import silu", 1),
        ("models/unet.py", "from ..engines import cpu\n\ndef f(x):\n    return cpu.ops.silu(x)", 4),
        ("models/unet.py", "from .. import engines as e\nx = e.cpu.ops.silu", 2),
        ("models/unet.py", "import house.engines.cpu\nx = house.engines.cpu.ops.silu", 2),
    ],
)
def test_an_internal_of_an_engine_is_found_outside_it(house, path, source, line):
    why = "expected engines.cpu or engines.cpu.runtime, got its internal engines.cpu.ops; export what is needed"
    assert imports.wrong(house({path: source})) == [f"{path}:{line}: {why}"]


def test_a_room_that_nobody_has_placed_is_found(house):
    found = imports.wrong(house({"cellar/__init__.py": "from ..cli import main"}))
    assert found == ["cellar/__init__.py: expected a room that ORDER places, got 'cellar'; give it a row"]


def test_imports_for_types_alone_and_imports_named_in_a_run_are_apart(house):
    source = (
        "if TYPE_CHECKING:\n    from ..training import loop\nelse:\n    from ..random import Key\nimport_module(name)"
    )
    sources = house({"process/exact.py": source})
    assert not imports.wrong(sources)
    found = imports.to_dict(sources)
    assert found["types_only"] == ["process/exact.py:2: training.loop"]
    assert found["unread"] == ["process/exact.py:5: import_module(name)"]
    assert found["rooms"]["process"] == {"random": 1, "errors": 1}
    assert found["files"]["process/exact.py"] == ["random"]


def test_the_command_prints_the_arrows_and_what_is_wrong(house, tmp_path, capsys):
    house({})
    assert imports.main([str(tmp_path / "house")]) == 0
    out = capsys.readouterr().out
    assert "training   -> config 1, storage 1, engines 1\n" in out
    assert "models/unet.py" in out
    assert out.endswith("wrong: 0\n")
    house({"random.py": "from . import process"})
    assert imports.main([str(tmp_path / "house"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["rooms"]["random"] == {"process": 1}
    assert found["wrong"] == ["random.py:1: expected imports of rooms below random, got process, which stands above it"]


def test_the_order_is_that_of_the_design():
    chain = [
        "cli",
        "commands",
        "training",
        "config",
        "systems",
        "evaluation",
        "sampling",
        "objectives",
        "models",
        "engines",
    ]
    for above, below in pairwise(chain):
        assert below in imports.allowed(above)
        assert above not in imports.allowed(below)
    for above in ("commands", "training"):
        assert {"config", "storage", "data"} <= set(imports.allowed(above))
    for room in ("objectives", "sampling", "evaluation", "systems"):
        assert not {"config", "storage"} & set(imports.allowed(room))
    for room in ("process", "random", "errors"):
        assert not {*chain, "config", "storage", "data", "testing", "benchmark"} & set(imports.allowed(room))
    rooms = {room for row in imports.ORDER for room in row}
    assert {room for room in rooms if "testing" in imports.allowed(room)} == {"commands", "benchmark"}
    assert {room for room in rooms if "benchmark" in imports.allowed(room)} == {"commands"}
    assert {room for room in rooms if "commands" in imports.allowed(room)} == {"cli"}
    assert {room for room in rooms if "cli" in imports.allowed(room)} == {"__main__"}
