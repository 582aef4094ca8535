"""The pictures of a run while it trains."""

import pytest

from refdiff.config import Config
from refdiff.data import load
from refdiff.sampling import sample
from refdiff.storage import save_grid
from refdiff.training import every_class, train, trained


@pytest.mark.parametrize("change", ["networks.denoiser.low_res=4", "networks.denoiser.null_label=false"])
def test_a_picture_is_of_conditions_of_the_data_where_none_may_be_left_out(tmp_path, change):
    """A run of super-resolution draws its pictures of enlarged training images."""
    changes = [
        "networks.denoiser.width=8",
        "networks.denoiser.groups=4",
        "networks.denoiser.classes=10",
        "sample.steps=2",
    ]
    changes += [
        "train.steps=2",
        "train.batch=8",
        "train.grid_every=2",
        "schedule.T=4",
        "schedule.kind=cosine",
        "engine=reference",
        change,
    ]
    config = Config.resolve("digits", changes=changes)
    model = trained(config, train(config, tmp_path / "run", progress=False))
    conditions = every_class(model, 64)
    if "low_res" in change:
        x = load("digits").x[:64]
        conditions["low_res"] = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
    save_grid(tmp_path / "expected.png", sample(model, 64, conditions=conditions, progress=False))
    drawn = (tmp_path / "run" / "samples" / "step0000002.png").read_bytes()
    assert drawn == (tmp_path / "expected.png").read_bytes()
