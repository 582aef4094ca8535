"""The errors and the warning of the public edge, and the words that they share.

ValueError is for an argument, the classes here for the rest. A message names what has to be changed as whoever reads it
would write it: `option` and `setting` speak Python, and inside `at_the_command_line` the command's options.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class FormatError(ValueError):
    """A file is not what it should be: the message names the file, what was expected, what it got, what to do."""


class TrainingError(ValueError):
    """Training cannot go on: the message names the step, what happened, and what is kept."""


class NotFiniteError(ValueError):
    """Samples with NaN or infinity."""


class DeviceError(RuntimeError):
    """No usable GPU, too little memory, a kernel that does not compile or run, or a helping process that ended; the message
    says what to do."""


class DoubtWarning(UserWarning):
    """What is asked for can be done and is hardly meant: the message says the number that looks wrong, and what to do."""


_commanded: ContextVar[bool] = ContextVar("commanded", default=False)


@contextmanager
def at_the_command_line() -> Iterator[None]:
    """Inside, messages name options, `--resume`, where they name arguments of Python, `resume=True`, elsewhere."""
    token = _commanded.set(True)
    try:
        yield
    finally:
        _commanded.reset(token)


def option(name: str, value: Any = True) -> str:
    """An argument with its value, as one writes it here: resume=True or --resume, engine="cpu" or --engine cpu."""
    if _commanded.get():
        return f"--{name}" if value is True else f"--{name} {value}"
    quoted = f'"{value}"' if isinstance(value, str) else value
    return f"{name}={quoted}"


def argument(name: str, command: str | None = None) -> str:
    """An argument's name at the head of a message, as one writes it here: out or --out; command: the option's own name."""
    return f"--{command or name}" if _commanded.get() else name


def setting(key: str, value: Any) -> str:
    """A key of the configuration with its value, as one writes it here: train.steps=5 or --set train.steps=5."""
    return f"{'--set ' if _commanded.get() else ''}{key}={value}"


def extra(name: str) -> str:
    """How an optional part is installed: from a checkout, since an index may not have this package."""
    return f'pip install ".[{name}]" in a checkout of refdiff'


def new_name(name: Any) -> None:
    """ValueError unless something of a user's can be known by this name."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"name: expected a word, as a configuration says it, got {name!r}")


def one_of(name: str, value: Any, known: Iterable[str], advice: str = "") -> None:
    """ValueError unless `value` is one of the known names; it lists them, and the nearest to what it got, or else
    `advice`."""
    names = list(known)
    if value not in names:
        import difflib  # here, since `import refdiff` is to be quick

        close = difflib.get_close_matches(str(value), names, 1)
        hint = f"; did you mean {close[0]}?" if close else f"; {advice}" if advice else ""
        raise ValueError(f"{name}: expected one of {', '.join(names)}, got {value!r}{hint}")
