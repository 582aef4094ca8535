"""What is kept on disk: checkpoints and images, each file whole or not there."""

from .atomic import replace_file
from .checkpoint import load_checkpoint, save_checkpoint
from .images import grid, save_folder, save_grid, save_npz, save_png, save_strip, to_uint8

__all__ = [
    "grid",
    "load_checkpoint",
    "replace_file",
    "save_checkpoint",
    "save_folder",
    "save_grid",
    "save_npz",
    "save_png",
    "save_strip",
    "to_uint8",
]
