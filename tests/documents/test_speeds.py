"""What README says of the cpu engine's speed is what benchmarks/results/cpu.json says, all of its rows."""

import json

import pytest
from helpers import ROOT

RECORDS = json.loads((ROOT / "benchmarks/results/cpu.json").read_text())["records"]
ADM = json.loads((ROOT / "benchmarks/results/adm.json").read_text())["records"]


def ratio(record):
    """Our time over that of PyTorch's better layout."""
    return max(record["ratios"][f"torch {layout}"]["median"] for layout in ("eager", "channels-last"))


def of(*kinds):
    """The records that have both layouts, of whole networks or of operations, at every number of threads."""
    return [
        r for r in RECORDS if r["case"]["kind"] in kinds and {"torch eager", "torch channels-last"} <= set(r["ratios"])
    ]


def span(*kinds):
    ratios = [ratio(record) for record in of(*kinds)]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def sentence():
    every = of("operation")
    norms = [ratio(r) for r in every if r["case"]["operation"].startswith("group_norm")]
    convolutions = [
        ratio(r)
        for r in every
        if r["case"]["operation"] == "conv2d" and r["case"]["parameters"]["weight"][:2] == [3, 3]
    ]
    return (
        f"On one core and on two, a training step or forward pass of a whole network takes {span('train', 'forward')} of "
        f"the time of PyTorch's better layout, a sampling step {span('sample')}, and a training step takes less memory. "
        f"A single operation called alone is another matter: PyTorch is faster at {sum(ratio(r) > 1 for r in every)} of "
        f"the {len(every)} measured, at group norms by up to {max(norms):.1f} times, at 3x3 convolutions in "
        f"{sum(r > 1 for r in convolutions)} of {len(convolutions)}."
    )


def test_the_ranges_of_readme_are_those_of_all_rows():
    assert {r["threads"] for r in of("train", "forward", "sample")} == {1, 2}
    assert sentence() in " ".join((ROOT / "README.md").read_text().split())


def test_a_training_step_takes_less_memory():
    alone = [r["peers"] for r in RECORDS if r["case"].get("alone")]
    assert len(alone) >= 3
    for peers in alone:
        assert peers["cpu"]["memory"] < min(peer["memory"] for name, peer in peers.items() if name.startswith("torch"))


@pytest.mark.parametrize("kind", ["train", "forward", "sample", "operation"])
def test_no_row_is_left_out(kind):
    """Only where a table is about something else is one of the two layouts missing."""
    without = [r for r in RECORDS if r["case"]["kind"] == kind and r not in of(kind)]
    assert all("title" in r for r in without), "a row of the main table has not both layouts"


def test_the_ranges_of_a_network_of_adms_kind_are_those_of_all_rows():
    """Training and sampling take less than 0.8 of PyTorch's time, at one thread and at two."""
    spans = {}
    for kind in ("train", "sample"):
        rows = [record for record in ADM if record["case"]["kind"] == kind]
        assert [record["threads"] for record in rows] == [2, 1]
        assert not any("wrong" in peer for record in rows for peer in record["peers"].values())
        ratios = [ratio(record) for record in rows]
        assert max(ratios) < 0.8
        spans[kind] = f"{min(ratios):.2f} to {max(ratios):.2f}"
    sentence = (
        f"On one core and on two, a training step of `digits-adm` takes {spans['train']} of the time of PyTorch's better "
        f"layout, a sampling step {spans['sample']}"
    )
    assert sentence in " ".join((ROOT / "docs/adm.md").read_text().split())
