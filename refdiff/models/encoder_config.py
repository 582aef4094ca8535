"""What the U-Net and the classifier are told of their encoder, in one frozen dataclass, with what it refuses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import gcd

from ..errors import one_of
from . import blocks

__all__ = ["RESAMPLINGS", "EncoderConfig", "level_sizes"]

RESAMPLINGS = ("strided", "pooled")


@dataclass(frozen=True)
class EncoderConfig:
    """size: height and width of the images, one number or (height, width); channels: theirs; width: the feature channels of
    the first level.

    multipliers: the width of each level as a multiple of `width`; each level but the last halves the size.
    blocks: residual blocks a level (a decoder has one more). attention: sizes at which attention follows each block; left
    out, the largest of at most 16 below the images' own, if there is one (the middle has attention always); the size of a
    level that is not square is its smaller side.
    heads: of the attention. groups: most groups of a group norm. dropout: rate in [0, 1). resampling: "strided" or
    "pooled". time: "ddpm" or "adm" sinusoids. ValueError when something does not fit.
    """

    size: int | tuple[int, int] = 32
    channels: int = 3
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = None  # type: ignore[assignment]  # until __post_init__ has seen the sizes
    heads: int = 1
    groups: int = 32
    dropout: float = 0.0
    resampling: str = "strided"
    time: str = "ddpm"

    def __post_init__(self) -> None:
        if isinstance(self.size, tuple) and (
            len(self.size) != 2 or not all(type(s) is int and s >= 1 for s in self.size)
        ):
            raise ValueError(f"size: expected a side, or height and width, of at least 1 each, got {self.size}")
        sides = () if isinstance(self.size, tuple) else ("size",)
        self._check_integers(*sides, "channels", "width", "blocks", "heads", "groups")
        if not self.multipliers or not all(isinstance(m, int) and m >= 1 for m in self.multipliers):
            raise ValueError(f"multipliers: expected at least one integer of at least 1, got {self.multipliers}")
        if self.width < 4:
            raise ValueError(f"width: expected at least 4, the least that carries a time embedding, got {self.width}")
        halvings = len(self.multipliers) - 1
        if any(side % 2**halvings for side in self.sides):
            padded = "x".join(str(-(-side // 2**halvings) * 2**halvings) for side in self.sides)
            possible = min((side & -side).bit_length() for side in self.sides)
            raise ValueError(
                f"size: expected a multiple of {2**halvings}, since {len(self.multipliers)} multipliers halve it "
                f"{halvings} times, got {self.size}; pad the images to {padded}, or give at most {possible}: "
                f"multipliers={str(list(self.multipliers[:possible])).replace(' ', '')}"
            )
        sizes = level_sizes(min(self.sides), self.multipliers)
        if self.attention is None:
            object.__setattr__(self, "attention", tuple(s for s in sizes[1:] if s <= 16)[:1])
        if not set(self.attention) <= set(sizes):
            fits = str([s for s in sizes[1:] if s <= 16][:1]).replace(" ", "")
            raise ValueError(
                f"attention: expected sizes among {sizes}, got {list(self.attention)}; give attention={fits}"
            )
        widths = {self.width * self.multipliers[-1], *(self.width * m for m, s in zip(self.multipliers, sizes, strict=True)
                                                      if s in self.attention)}  # fmt: skip
        if any(c % self.heads for c in widths):
            raise ValueError(
                f"heads: expected a divisor of {gcd(*widths)}, the channels with attention, got {self.heads}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a rate in [0, 1), got {self.dropout}")
        one_of("resampling", self.resampling, RESAMPLINGS)
        one_of("time", self.time, blocks.TIMES)

    def _check_integers(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}: expected an integer of at least 1, got {getattr(self, name)}")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return *self.sides, self.channels


def level_sizes(size: int, multipliers: Collection[float]) -> list[int]:
    """The side of each level, from the images' own down."""
    return [size // 2**level for level in range(len(multipliers))]
