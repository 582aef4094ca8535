"""What is kept on disk: checkpoints and images, each file whole or not there."""

from ..plotting import grid, to_uint8
from .atomic import replace_file
from .checkpoint import load_checkpoint, save_checkpoint
from .images import (
    check_folder,
    save_blocks,
    save_enlarged,
    save_folder,
    save_grid,
    save_npz,
    save_png,
    save_strip,
)
from .places import check_file, check_place

__all__ = [
    "check_file",
    "check_folder",
    "check_place",
    "grid",
    "load_checkpoint",
    "replace_file",
    "save_blocks",
    "save_checkpoint",
    "save_enlarged",
    "save_folder",
    "save_grid",
    "save_npz",
    "save_png",
    "save_strip",
    "to_uint8",
]
