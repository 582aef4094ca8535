"""What a small convolutional encoder and decoder are told of images and latents: one frozen dataclass for both, since one is
the mirror of the other. See `conv_encoder` and `conv_decoder`."""

from __future__ import annotations

from dataclasses import dataclass

from .encoder_config import check_sides
from .shapes import check_integers, check_shape, freeze_lists

__all__ = ["ConvolutionalConfig"]


@dataclass(frozen=True)
class ConvolutionalConfig:
    """size: height and width of the images, one number or (height, width); channels: theirs; width: the feature channels at
    that size; multipliers: the width of each level as a multiple of it, each level half the size of the one before; latent:
    numbers of a latent; parts: how many times the network says what it says, along the last axis: 2 for a mean and a log
    variance; groups: most groups of a group norm. ValueError when something does not fit.
    """

    size: int | tuple[int, int] = 8
    channels: int = 1
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    latent: int = 16
    parts: int = 1
    groups: int = 8

    def __post_init__(self) -> None:
        freeze_lists(self, "size", "multipliers")
        check_sides("size", self.size)
        check_integers(self, *(() if isinstance(self.size, tuple) else ("size",)), "channels", "width")
        check_shape("multipliers", self.multipliers)
        check_integers(self, "latent", "parts", "groups")
        most = 2 ** (len(self.multipliers) - 1)
        if any(side % most for side in self.sides):
            raise ValueError(
                f"size: expected a multiple of {most}, since {len(self.multipliers)} multipliers halve it "
                f"{len(self.multipliers) - 1} times, got {self.size}; pad the images, or give fewer multipliers"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @property
    def image(self) -> tuple[int, ...]:
        """The shape of an image."""
        return *self.sides, self.channels

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each level."""
        return tuple(self.width * m for m in self.multipliers)

    @property
    def smallest(self) -> tuple[int, int, int]:
        """The shape of the features at the last level."""
        height, width = (side // 2 ** (len(self.widths) - 1) for side in self.sides)
        return height, width, self.widths[-1]
