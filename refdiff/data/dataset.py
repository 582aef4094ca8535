"""What a data set is: samples in [-1, 1], perhaps labels, and a held-out part that training never sees."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ..errors import DoubtWarning
from ..models import Batch, Input
from ..random import Key, uniform

# More than this, unpacked, is taken for a corrupt header or a decompression bomb, and refused before it is read.
MAX_BYTES = 8 << 30


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples to learn from and samples to measure with, checked once here and read-only from then on.

    x                 float32, images (N, H, W, C) in [-1, 1] with C = 1 or 3, or points (N, D); N, D >= 1
    labels            int64 (N,), classes, none negative, or None
    held_out          like x, (M, ...); M may be 0
    held_out_labels   int64 (M,), or None exactly when labels is None
    flip              whether `rows` mirrors half of the images, left to right
    names             of the classes, in the order of their numbers; () where they are not known
    tenths            whether x and held_out are parts of one array, of which every tenth sample is held out

    The fields are read-only views: nothing is copied, and the caller's own arrays stay as writable as they were.
    Raises ValueError for another shape or dtype, for NaN, for values out of range, and for labels that do not fit.
    """

    name: str
    x: np.ndarray
    labels: np.ndarray | None
    held_out: np.ndarray
    held_out_labels: np.ndarray | None
    flip: bool = False
    names: tuple[str, ...] = ()
    tenths: bool = False

    def __post_init__(self) -> None:
        if self.flip and self.x.ndim != 4:
            raise ValueError("flip: expected images to mirror, got points; leave it out")
        lowest = {}
        for argument, samples in (("x", self.x), ("held_out", self.held_out)):
            lowest[argument] = check_samples(argument, samples)
            if samples.dtype != np.float32:
                raise ValueError(f"{argument}: expected float32, got {samples.dtype}; cast it with astype('float32')")
        if not len(self.x):
            raise ValueError("x: expected at least one sample, got none")
        if self.held_out.shape[1:] != self.x.shape[1:]:
            raise ValueError(
                f"held_out: expected samples of shape {self.x.shape[1:]} as in x, got {self.held_out.shape[1:]}; "
                "bring both to one shape"
            )
        if (self.labels is None) != (self.held_out_labels is None):
            missing = "labels" if self.labels is None else "held_out_labels"
            raise ValueError(f"{missing}: expected beside those of the other part, got none; give both or neither")
        if self.labels is not None:
            check_labels("labels", self.labels, len(self.x))
        if self.held_out_labels is not None:
            check_labels("held_out_labels", self.held_out_labels, len(self.held_out))
        self._check_names()
        self._doubt(lowest)
        for field in ("x", "labels", "held_out", "held_out_labels"):
            array = getattr(self, field)
            if array is not None:
                array = array.view()
                array.flags.writeable = False
                object.__setattr__(self, field, array)

    def _check_names(self) -> None:
        """ValueError for names of classes that no sample can be of, that are too few, or of which two are the same."""
        parts = [labels for labels in (self.labels, self.held_out_labels) if labels is not None and len(labels)]
        most = max((int(labels.max()) + 1 for labels in parts), default=0)
        if self.names and (self.labels is None or len(self.names) < most or len(set(self.names)) < len(self.names)):
            expected = f"{most} or more, each once" if self.labels is not None else "none without labels"
            raise ValueError(f"names: expected {expected}, got {', '.join(self.names)}")

    def _doubt(self, lowest: dict[str, np.floating]) -> None:
        """DoubtWarning for images that seem to be scaled to [0, 1]: nothing below 0, and not made of bytes."""
        for argument, low in lowest.items():
            x = getattr(self, argument)
            few = argument == "held_out" and len(x) < 10  # a few may be light by chance
            if x.ndim == 4 and x.size and not few and low >= 0 and x.max() > 0 and not _of_bytes(x):
                warnings.warn(
                    f"{self.name}: {argument}: expected images in [-1, 1], got [{low!s}, {x.max()!s}], as of images scaled "
                    "to [0, 1]; if they are, scale them by 2 x - 1",
                    DoubtWarning, stacklevel=4,
                )  # fmt: skip
                return

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (H, W, C), or (D,) for points."""
        return self.x.shape[1:]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def inputs(self) -> dict[str, Input]:
        """The entries of a batch: "x", and "label" where there are labels."""
        return {"x": Input(self.shape)} | ({"label": Input((), "int")} if self.labels is not None else {})

    def rows(self, ids: np.ndarray, key: Key) -> Batch:
        """The samples of these numbers, entries by name: a pure function. With `flip` each is mirrored with chance 1/2."""
        batch: Batch = {"x": self.x[ids]}
        if self.flip:
            mirrored = uniform(key("flip"), np.arange(len(ids))) < 0.5
            batch["x"] = np.where(mirrored[:, None, None, None], batch["x"][:, :, ::-1], batch["x"])
        return batch if self.labels is None else batch | {"label": self.labels[ids]}

    def to_measure(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Samples that were never to be learned from, and their labels or None: those held out, where the data have such a
        split of their own, and else all there are, in their order."""
        if not self.tenths:
            return (self.held_out, self.held_out_labels) if len(self.held_out) else (self.x, self.labels)
        return _joined(self.x, self.held_out), (
            None if self.labels is None or self.held_out_labels is None else _joined(self.labels, self.held_out_labels)
        )

    @property
    def classes(self) -> int:
        """How many different labels the two parts have; 0 without labels."""
        parts = [labels for labels in (self.labels, self.held_out_labels) if labels is not None]
        return len(np.unique(np.concatenate(parts))) if parts else 0

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"Dataset({self.name!r}: {len(self.x)} + {len(self.held_out)} of {shape}, {self.classes} classes)"


def check_samples(argument: str, x: np.ndarray) -> np.floating:
    """Raise ValueError unless x holds images (N, H, W, 1 or 3) in [-1, 1] or finite points (N, D).   -> the least of x"""
    points = x.ndim == 2 and x.shape[1] > 0
    if not points and (x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape[1:]):
        if x.ndim == 3:
            advice = "give grey images their channel axis: x[..., None]"
        elif x.ndim == 4 and x.shape[1] in (1, 3):
            advice = "put the channels last: x.transpose(0, 2, 3, 1)"
        else:
            advice = "reshape it"
        raise ValueError(
            f"{argument}: expected images (N, H, W, C) with C = 1 or 3, or points (N, D), got shape {x.shape}; {advice}"
        )
    if x.dtype.kind != "f":
        raise ValueError(
            f"{argument}: expected floating-point numbers, got {x.dtype}; see `load` for the files it scales"
        )
    if not x.size:
        return np.float32(0)
    low, high = x.min(), x.max()  # NaN if any element is
    if np.isnan(low):
        raise ValueError(f"{argument}: expected numbers, got {int(np.isnan(x).sum())} NaN; remove those samples")
    bound = np.inf if points else 1.0
    if not (-bound <= low and high <= bound) or np.isinf(low) or np.isinf(high):
        expected = "finite values" if points else "values in [-1, 1]"
        past = max(float(high) - 1, -1 - float(low))
        advice = f"clip it, which changes {past:.1g} at most" if past < 1e-3 else "scale it, or save bytes as uint8"
        advice = "remove those samples" if points else advice
        # As many digits as tell the numbers from 1.
        raise ValueError(f"{argument}: expected {expected}, got [{low!s}, {high!s}]; {advice}")
    return low


def _of_bytes(x: np.ndarray) -> bool:
    """Whether all of x is v / 127.5 - 1 for whole numbers v."""
    return all(np.abs(v - np.rint(v)).max() < 1e-3 for v in ((part + 1) * 127.5 for part in x))


def check_labels(argument: str, labels: np.ndarray, count: int) -> None:
    """Raise ValueError unless labels is int64 (count,) and nowhere negative."""
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise ValueError(
            f"{argument}: expected int64 of shape ({count},), got {labels.dtype} of shape {labels.shape}; "
            "give each sample the number of its class"
        )
    if len(labels) != count:
        raise ValueError(f"{argument}: expected {count}, one a sample, got {len(labels)}; remove what has no partner")
    if count and labels.min() < 0:
        raise ValueError(f"{argument}: expected classes counted from 0, got {labels.min()}; renumber them")


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """x = pixel / 127.5 - 1: bytes 0 .. 255 to float32 in [-1, 1].   uint8 any shape -> float32 same shape."""
    assert pixels.dtype == np.uint8, pixels.dtype
    x = pixels.astype(np.float32)
    x /= 127.5
    x -= 1
    return x


def hold_out_tenth(name: str, x: np.ndarray, labels: np.ndarray | None, names: tuple[str, ...] = ()) -> Dataset:
    """Hold out every tenth sample, those at 9, 19, 29, ... counted from 0: always the same ones."""
    held = _tenths(len(x))
    if labels is None:
        return Dataset(name, x[~held], None, x[held], None, tenths=True)
    check_labels("labels", labels, len(x))  # before the mask is laid on them
    return Dataset(name, x[~held], labels[~held], x[held], labels[held], names=names, tenths=True)


def _tenths(n: int) -> np.ndarray:
    return np.arange(n) % 10 == 9


def _joined(kept: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """What `hold_out_tenth` has cut in two."""
    held = _tenths(len(kept) + len(held_out))
    whole = np.empty((len(held), *kept.shape[1:]), kept.dtype)
    whole[held], whole[~held] = held_out, kept
    return whole
