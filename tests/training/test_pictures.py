"""The pictures of a run while it trains."""

from refdiff.config import Config
from refdiff.sampling import sample
from refdiff.storage import save_grid
from refdiff.training import every_class, train, trained


def test_a_picture_is_of_every_class_where_no_label_may_be_left_out(tmp_path):
    changes = [
        "networks.denoiser.width=8",
        "networks.denoiser.groups=4",
        "networks.denoiser.classes=10",
        "sample.steps=2",
    ]
    changes += ["train.steps=2", "train.batch=8", "train.grid_every=2", "schedule.T=4", "schedule.kind=cosine"]
    config = Config.resolve("digits", changes=[*changes, "engine=reference", "networks.denoiser.null_label=false"])
    model = trained(config, train(config, tmp_path / "run", progress=False))
    save_grid(tmp_path / "expected.png", sample(model, 64, conditions=every_class(model, 64), progress=False))
    drawn = (tmp_path / "run" / "samples" / "step0000002.png").read_bytes()
    assert drawn == (tmp_path / "expected.png").read_bytes()
