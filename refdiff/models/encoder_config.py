"""What the U-Net and the classifier are told of their encoder, in one frozen dataclass, with what it refuses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import gcd, isfinite
from typing import Any

from ..errors import one_of
from .blocks import CONDITIONINGS, QKVS, RESAMPLINGS, TIMES
from .shapes import check_integers, freeze_lists

__all__ = ["EncoderConfig", "level_sizes"]


@dataclass(frozen=True)
class EncoderConfig:
    """size: height and width of the images, one number or (height, width); channels: theirs; width: the feature channels of
    the first level.

    multipliers: the width of each level as a multiple of `width`, which need be no integer; each level but the last halves
    the size. stem: the channels of the first convolution, likewise. blocks: residual blocks a level, one number or one for
    each (a decoder has one more). attention: sizes at which attention follows each block; left out, the largest of at most
    16 below the images' own, if there is one (the middle has attention always); the size of a level that is not square is
    its smaller side.
    heads: of the attention, or head_channels: the channels of each, 0 to go by heads. qkv: the order of a projection,
    "split" or "interleaved", see `blocks.attention`. groups: most groups of a group norm; epsilon: in its root.
    dropout: rate in [0, 1). conditioning: what the embedding does in a residual block, "add" or "scale_shift". resampling:
    "strided", "centred", "pooled", "plain", "residual" or "residual_projected", see `blocks/resample.py`. time: "ddpm" or
    "adm" sinusoids. ValueError when something does not fit.
    """

    size: int | tuple[int, int] = 32
    channels: int = 3
    width: int = 128
    multipliers: tuple[float, ...] = (1, 2, 2, 2)
    blocks: int | tuple[int, ...] = 2
    attention: tuple[int, ...] = None  # type: ignore[assignment]  # until __post_init__ has seen the sizes
    heads: int = 1
    groups: int = 32
    dropout: float = 0.0
    resampling: str = "strided"
    time: str = "ddpm"
    stem: float = field(default=1.0, kw_only=True)
    head_channels: int = field(default=0, kw_only=True)
    qkv: str = field(default="split", kw_only=True)
    conditioning: str = field(default="add", kw_only=True)
    epsilon: float = field(default=1e-6, kw_only=True)

    def __post_init__(self) -> None:
        freeze_lists(self, "size", "blocks", "attention")
        check_sides("size", self.size)
        sides = () if isinstance(self.size, tuple) else ("size",)
        levels = () if isinstance(self.blocks, tuple) else ("blocks",)
        check_integers(self, *sides, "channels", "width", *levels, "heads", "groups")
        check_integers(self, "head_channels", least=0)
        if self.width < 4:
            raise ValueError(f"width: expected at least 4, the least that carries a time embedding, got {self.width}")
        if not self.multipliers:
            raise ValueError(f"multipliers: expected at least one number above 0, got {self.multipliers}")
        for multiplier in self.multipliers:
            self._check_factor("multipliers", multiplier)
        self._check_factor("stem", self.stem)
        whole = tuple(int(m) if m == int(m) else m for m in self.multipliers)
        object.__setattr__(self, "multipliers", whole)  # as they are written, whatever type they came with
        if isinstance(self.blocks, tuple) and (
            len(self.blocks) != len(self.multipliers) or not all(type(b) is int and b >= 1 for b in self.blocks)
        ):
            raise ValueError(
                f"blocks: expected one number, or one for each of {len(self.multipliers)} levels, of at least 1, got "
                f"{list(self.blocks)}"
            )
        self._check_sizes()
        self._check_heads()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a rate in [0, 1), got {self.dropout}")
        if not 0 < self.epsilon < float("inf"):
            raise ValueError(f"epsilon: expected a finite number above 0, got {self.epsilon}")
        one_of("resampling", self.resampling, RESAMPLINGS)
        one_of("time", self.time, TIMES)
        one_of("qkv", self.qkv, QKVS)
        one_of("conditioning", self.conditioning, CONDITIONINGS)

    def _check_factor(self, name: str, factor: Any) -> None:
        if not isinstance(factor, int | float) or not isfinite(factor) or factor <= 0:
            words = "numbers" if name == "multipliers" else "a number"
            raise ValueError(f"{name}: expected {words} above 0, got {getattr(self, name)}")
        channels = self.width * factor
        if abs(channels - round(channels)) > 1e-9 * channels or round(channels) < 1:
            raise ValueError(
                f"{name}: expected whole channels, got {factor}, which times width = {self.width} makes {channels:g}"
            )

    def _check_sizes(self) -> None:
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

    def _check_heads(self) -> None:
        sizes = level_sizes(min(self.sides), self.multipliers)
        own = {c for c, size in zip(self.widths, sizes, strict=True) if size in self.attention} | {self.widths[-1]}
        name = "head_channels" if self.head_channels else "heads"
        if any(c % getattr(self, name) for c in own):
            raise ValueError(
                f"{name}: expected a divisor of {gcd(*own)}, the channels with attention, got {getattr(self, name)}"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return *self.sides, self.channels

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each level."""
        return tuple(round(self.width * m) for m in self.multipliers)

    @property
    def stem_width(self) -> int:
        """The channels of the first convolution."""
        return round(self.width * self.stem)

    @property
    def depths(self) -> tuple[int, ...]:
        """The blocks of each level."""
        return self.blocks if isinstance(self.blocks, tuple) else (self.blocks,) * len(self.multipliers)

    @property
    def branch_factor(self) -> float:
        """What the sum of a block's two paths is multiplied by."""
        return 1.0

    def heads_of(self, channels: int) -> int:
        """The heads of an attention of so many channels."""
        return channels // self.head_channels if self.head_channels else self.heads


def check_sides(name: str, size: Any) -> None:
    """ValueError for a pair that is none of sides."""
    if isinstance(size, tuple) and (len(size) != 2 or not all(type(s) is int and s >= 1 for s in size)):
        raise ValueError(f"{name}: expected a side, or height and width, of at least 1 each, got {size}")


def level_sizes(size: int, multipliers: Collection[float]) -> list[int]:
    """The side of each level, from the images' own down."""
    return [size // 2**level for level in range(len(multipliers))]
