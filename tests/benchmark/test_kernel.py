"""Somebody's kernel, on the emulator; and `refdiff bench` with options that do not fit."""

import json
import re

import helpers
import pytest
from helpers import ROOT, emulated

from refdiff.benchmark import command, harness, kernel
from refdiff.benchmark.conventions import CONVENTIONS, launch_of
from refdiff.benchmark.kernel import check_and_time, parse
from refdiff.cli import main
from refdiff.engines.cuda.runtime import nvrtc
from refdiff.errors import DeviceError

EXAMPLE = ROOT / "benchmarks/examples/group_norm.cu"


@pytest.fixture
def device():
    from emulator import Emulator

    return Emulator()


@emulated
def test_the_example_is_right_and_is_timed(device, monkeypatch):
    small = CONVENTIONS["group_norm"]._replace(shapes=CONVENTIONS["group_norm"].shapes[1:])
    monkeypatch.setitem(CONVENTIONS, "group_norm", small)
    monkeypatch.setattr(kernel, "ROUNDS", 4)
    found = check_and_time(*parse(f"{EXAMPLE}:simple_group_norm", "group_norm"), "bfloat16", device)
    assert [c["sizes"]["C"] for c in found["checked"]] == [6, 24]
    assert all(c["error"] <= c["bound"] for c in found["checked"])
    assert found["ratio"]["n"] == 4
    assert found["sizes"] == {"N": 3, "P": 35, "C": 24, "G": 8}
    json.dumps(found)


@emulated
@pytest.mark.parametrize(("change", "words"), [
    (("+ bias[c]", ""), "expected an error of at most"),
    (("grid = N * G", "grid = N * G - 1"), "not written"),
    (("store(to + at,", "store((Real*)x + 0, 0.f), store(to + at,"), "writes into its inputs|expected an error"),
])  # fmt: skip
def test_a_wrong_one_is_not_timed(device, tmp_path, change, words):
    path = tmp_path / "wrong.cu"
    path.write_text(EXAMPLE.read_text().replace(*change))
    with pytest.raises(ValueError, match=words):
        check_and_time(path, "simple_group_norm", "group_norm", "float32", device, timed=False)


def test_how_a_kernel_is_launched(tmp_path):
    path, sizes = tmp_path / "a.cu", {"N": 5, "C": 300}
    path.write_text("// bench f: grid = (ceil(C, 256), N), block = min(C, 1024) // 2, shared = 4 * C + 2\n")
    assert launch_of(path, "f", sizes) == ((2, 5), (150,), 1202)
    for line, words in [
        ("// bench g: grid = 1, block = 32", "a line that says how f is launched"),
        ("// bench f: grid = 1", "expected grid and block"),
        ("// bench f: grid = D, block = 32", "grid = 'D': expected integers, N, C"),
        ("// bench f: grid = __import__('os'), block = 32", "expected integers"),
        ("// bench f: grid = 1 //, block = 32", "grid = "),
        ("// bench f: grid = N % 0, block = 32", "grid = "),
    ]:
        path.write_text(line)
        with pytest.raises(ValueError, match=re.escape(words)):
            launch_of(path, "f", sizes)


def test_the_conventions_are_documented_and_their_integers_are_the_sizes():
    text = (ROOT / "docs/benchmarks.md").read_text()
    for name, c in CONVENTIONS.items():
        assert f"| `{name}` | `{c.arguments}` |" in text, name
        for shape in c.shapes:
            assert re.findall(r"int (\w+)", c.arguments) == list(c.sizes(*shape)), name
            assert c.arguments.count("float ") == len(c.scalars(c.sizes(*shape))), name


def fails(capsys, *arguments):
    """The one line on stderr of `refdiff bench` with these arguments, which must end with status 2."""
    return helpers.fails(capsys, "bench", *arguments)


def test_options_that_do_not_fit(capsys, tmp_path):
    (tmp_path / "a.cu").write_text("// nothing\n")
    kernel = ["--kernel", f"{EXAMPLE}:simple_group_norm"]
    assert "FILE.cu:NAME" in fails(capsys, "--kernel", EXAMPLE)
    assert "does not exist" in fails(capsys, "--kernel", "none.cu:f", "--as", "silu")
    assert "--as: expected the operation" in fails(capsys, *kernel)
    assert "did you mean group_norm?" in fails(capsys, *kernel, "--as", "groupnorm")
    assert "is given (const T* x, T* y, int n)" in fails(capsys, *kernel, "--as", "silu")
    assert "has no kernel f" in fails(capsys, "--kernel", f"{tmp_path}/a.cu:f", "--as", "silu")
    assert "--dtype: expected one of" in fails(capsys, *kernel, "--as", "group_norm", "--dtype", "float16")
    assert "--profile: expected without" in fails(capsys, *kernel, "--as", "group_norm", "--profile")
    assert "--as: expected with --kernel" in fails(capsys, "--as", "silu")
    assert "--dtype: expected with --kernel" in fails(capsys, "--dtype", "bfloat16")
    assert "model: expected one of" in fails(capsys, "--model", "dit")
    assert "--batch" in fails(capsys, "--batch", "0")
    assert "--seconds" in fails(capsys, "--seconds", "0")


def test_without_a_gpu_it_is_compiled(capsys, tmp_path, monkeypatch):
    try:
        nvrtc.find()
    except DeviceError:
        pytest.skip("needs NVRTC")
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    said = fails(capsys, "--kernel", f"{EXAMPLE}:simple_group_norm", "--as", "group_norm")
    assert "it compiles for sm_80 and sm_90a; to check and time it takes a GPU" in said
    path = tmp_path / "a.cu"
    path.write_text(EXAMPLE.read_text().replace("float sum = 0;", "float sum = zero;"))
    said = fails(capsys, "--kernel", f"{path}:simple_group_norm", "--as", "group_norm")
    assert re.search(r"a\.cu does not compile.*a\.cu\(\d+\): error: identifier .zero. is undefined", said)


def test_an_engine_that_crashes(capsys, fake, monkeypatch):
    """What was measured is shown, and the exit status says that something was not."""
    monkeypatch.setattr(command, "PeerProcess", lambda c, e: fake("raises" if c[-1] == "cpu" else "judge"))
    monkeypatch.setattr(command, "SHOWN", ())
    monkeypatch.setattr(harness, "WARM", 0.0)
    assert main(["bench", "--seconds", "20", "--batch", "1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["records"]) == 2
    assert all(record["peers"]["reference"]["seconds"] > 0 for record in found["records"])


def test_what_was_measured():
    """Every case, to the end, with a right result; a profile has none."""
    good, other = {"seconds": 1.0}, {"error": "ended with status 3"}
    for ours, right in (
        (good, True),
        (other, False),
        (good | other, False),
        (good | {"wrong": "differs"}, False),
        ({}, False),
    ):
        records = [{"subject": "ours", "peers": {"ours": entry, "other": other}} for entry in (good, ours)]
        assert command.measured({"records": records}) is right
    assert command.measured({"operations": []})


def test_a_profile(capsys):
    assert main(["bench", "--profile", "--batch", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(line["calls"] for line in found["operations"] if line["operation"] == "conv2d") == 20
    assert all(line["seconds"] > 0 for line in found["operations"])
