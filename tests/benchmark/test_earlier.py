"""Results of several runs in one file: the later one is shown, and nothing that was measured is lost."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gpu
from benchmarks.earlier import Results, read
from benchmarks.suite import Suite
from refdiff.benchmark import markdown

DRY = "gpu, dry: nothing here was measured on a GPU"
TIMES = [f"2026-01-0{day}T00:00:00Z" for day in range(1, 8)]


def run_of(written, parts, cases):
    """A result, as a file has it, whose content says when it was made."""
    common = {"written": written, "commit": "c" + written[9]}
    entries = {key: {"name": key, "text": written, "seconds": 1.0, "ok": True, "failures": [], "found": {}, **common,
                     "versions": {"commit": "c" + written[9]}, "machine": {"cores": 1}} for key in parts}  # fmt: skip
    records = [{"part": "networks", "case": {"kind": "train", "model": "digits", "batch": n, "dtype": "float32"},
                "subject": "ours", "peers": {"ours": {"seconds": 1.0}}, "ratios": {}, **common} for n in cases]  # fmt: skip
    return {"suite": DRY, "written": written, "versions": {"commit": "c" + written[9]}, "machine": {"cores": 1},
            "parts": entries, "failures": [], "records": records, "earlier": {"parts": [], "records": []}}  # fmt: skip


def everything(found):
    """All that was ever measured, however it lies."""
    parts = [{"part": key, **entry} for key, entry in found["parts"].items()] + found["earlier"]["parts"]
    records = found["records"] + found["earlier"]["records"]
    return sorted(json.dumps(entry, sort_keys=True) for entry in [*parts, *records])


pieces = st.lists(
    st.tuples(st.sets(st.sampled_from(["checks", "networks", "tiles"])), st.sets(st.integers(1, 3))), max_size=5
)


@given(pieces, st.randoms(use_true_random=False))
def test_the_order_of_files_changes_nothing_and_nothing_is_lost(pieces, random):
    runs = [
        run_of(written, sorted(parts), sorted(cases)) for written, (parts, cases) in zip(TIMES, pieces, strict=False)
    ]
    results, mixed = Results(), Results()
    for run in runs:
        results.take(run)
    halves = Results()
    for run in (shuffled := random.sample(runs * 2, 2 * len(runs))):  # some twice
        (mixed if random.random() < 0.5 else halves).take(run)
    mixed.take(halves.as_dict())
    one, two = results.as_dict(), mixed.as_dict()
    assert len(shuffled) == 2 * len(runs)
    assert everything(one) == everything(two) == sorted({text for run in runs for text in everything(run)})
    assert one["parts"] == two["parts"]
    for key, entry in one["parts"].items():
        assert entry["written"] == max(run["written"] for run in runs if key in run["parts"])
    shown = {record["case"]["batch"]: record["written"] for record in two["records"]}
    assert shown == {n: run["written"] for run in runs for n in [r["case"]["batch"] for r in run["records"]]}


def test_a_part_that_is_run_again_keeps_what_it_does_not_reach(tmp_path):
    """Three cases, then a run of another commit that has time for one: the table shows which is of which."""
    old = run_of(TIMES[0], ["networks"], [1, 2, 3])
    suite = Suite(DRY, tmp_path / "gpu.json", 10, [old])

    def networks(budget):
        new = run_of(TIMES[1], [], [2])["records"][0]
        suite.keep({key: value for key, value in new.items() if key not in ("part", "written", "commit")})
        raise RuntimeError("the machine was taken away")

    suite.part("networks", "networks", 1, networks)
    assert suite.finish() == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [r["case"]["batch"] for r in found["records"]] == [1, 2, 3]
    assert [r["commit"] == "c1" for r in found["records"]] == [True, False, True]
    assert (len(found["earlier"]["parts"]), len(found["earlier"]["records"])) == (1, 1)
    table = (tmp_path / "gpu.md").read_text()
    assert table.count("| c1 |") == 2
    assert table.count(f"| {found['versions']['commit'][:12]}") == 1
    assert "measured of" in table


def test_files_are_taken_in_without_measuring(tmp_path):
    for i, parts in enumerate((["checks"], ["networks"])):
        (tmp_path / f"{i}.json").write_text(json.dumps(run_of(TIMES[i], parts, [i + 1] * i)))
    out = tmp_path / "folder" / "gpu.json"
    add = ["--add", str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    assert gpu.main(["--dry", "--out", str(out), "--parts", "none", *add]) == 0
    found = json.loads(out.read_text())
    assert (list(found["parts"]), len(found["records"])) == (["checks", "networks"], 1)
    assert found["versions"]["commit"] == "c2"  # where the last was measured, not where the files were put together
    assert f"checks: {TIMES[0]} (1 s; measured {TIMES[0]} of c1)" in markdown(found)


@pytest.mark.parametrize(("text", "words"), [
    ("[1]", "got no such JSON"), ("{", "got no such JSON"), ('{"suite": "cpu"}', "got one of 'cpu'; choose another file"),
    (json.dumps({"suite": DRY, "records": []}), "expected parts, records and earlier, got suite, records"),
])  # fmt: skip
def test_a_file_that_is_something_else_is_left_alone(tmp_path, capsys, text, words):
    path = tmp_path / "gpu.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"gpu\.json: expected"):
        read(path, DRY)
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--dry", "--out", str(path), "--parts", "none"])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert path.read_text() == text
