"""Find and make the scheduler that a command line names: `module:name key=value ...`. What cannot be is said in a line."""

from __future__ import annotations

import difflib
import importlib
import importlib.abc
import inspect
import json
import os
import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from .scheduler import Scheduler, expected_methods, offers

__all__ = ["current_folder_for", "load", "no_scheduler", "options"]


def options(arguments: Iterable[str]) -> dict[str, Any]:
    """{"eta": 0.5, "clip_sample": False} from eta=0.5 clip_sample=false: values are JSON, or else text."""
    values: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not (equals and name.isidentifier()):
            raise ValueError(f"options: expected name=value, got {argument!r}")
        try:
            values[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
        except json.JSONDecodeError:
            values[name] = text
    return values


def load(target: str, options: dict[str, Any] | None = None) -> Scheduler:
    """The scheduler that `module:name` names, made with these keyword options, ready to be asked.

    An object with the methods of `Scheduler` is taken as it is; one of diffusers is put into its adapter, which takes
    `eta` and `use_clipped_model_output` beside the options of its class. ValueError if it is neither, or cannot be made.
    """
    module_name, colon, name = target.partition(":")
    if not (colon and module_name and name):
        raise ValueError(f"target: expected module:class, as in mypackage.schedules:MyScheduler, got {target!r}")
    if not all(part.isidentifier() for part in module_name.split(".")) or module_name.endswith(".py"):
        stem = os.path.splitext(os.path.basename(module_name))[0]
        raise ValueError(
            f"target: expected a module, with dots and without .py, got {module_name!r}; for a file, go to its folder and "
            f"say {stem if stem.isidentifier() else 'module'}:{name}"
        )
    given = dict(options or {})
    try:
        made = _made(_found(module_name, name, target), given, target)
    except (ValueError, ImportError):
        raise
    except (Exception, SystemExit) as error:  # whatever somebody's module or class raises
        raise ValueError(
            f"target: {target} with {given or 'no options'} raised {type(error).__name__}: {error}"
        ) from error
    if not offers(made, ["alpha_bar"]):
        raise ValueError(f"target: {target} is no scheduler that can be asked. {no_scheduler(made)}")
    return made


def no_scheduler(subject: Any) -> str:
    """Why it cannot be asked."""
    return (
        f"A scheduler has alpha_bar and as many as it can of: {expected_methods()}; {type(subject).__name__} has not. "
        "Write a class with these methods around it (see docs/verify-your-own.md)"
    )


class _Here(importlib.abc.MetaPathFinder):
    """Finds in a folder the one module that was named, and what those found here import: never what a library asks for."""

    def __init__(self, folder: str, named: str) -> None:
        self.folder, self.ours = folder, {named}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is not None or not (name in self.ours or self._asked_by_ours()):
            return None
        self.ours.add(name)
        return PathFinder.find_spec(name, [self.folder])

    def _asked_by_ours(self) -> bool:
        frame = inspect.currentframe()
        while frame is not None:
            name = str(frame.f_globals.get("__name__", ""))
            if name != __name__ and not name.startswith("importlib"):
                return name.split(".")[0] in self.ours
            frame = frame.f_back
        return False


@contextmanager
def current_folder_for(named: str) -> Iterator[None]:
    """While it lasts, of the current folder only the named module is imported, if there is no other of its name, and what
    it imports in turn: an h2.py that lies there is not taken for the h2 of a library, nor for one that is not installed."""
    path, finders, here = list(sys.path), list(sys.meta_path), os.getcwd()
    sys.path[:] = [folder for folder in path if os.path.realpath(folder or here) != os.path.realpath(here)]
    sys.meta_path.append(_Here(here, named.split(".")[0]))
    try:
        yield
    finally:
        sys.path[:], sys.meta_path[:] = path, finders


def _found(module_name: str, name: str, target: str) -> Any:
    """The object, from a module that may lie in the current folder."""
    try:
        with current_folder_for(module_name):
            module = importlib.import_module(module_name)
            found = getattr(module, name, None)  # which may import more
    except ModuleNotFoundError as error:
        install = ": pip install diffusers torch" if module_name.split(".")[0] == "diffusers" else ""
        raise ValueError(f"target: {target} needs the module {error.name!r}, which is not found{install}") from error
    if found is None:
        raise ValueError(f"target: {_no_such(module, module_name, name)}")
    return found


def _no_such(module: Any, module_name: str, name: str) -> str:
    """What the module has in place of what is not there."""
    from . import diffusers

    if module_name == "diffusers":
        classes = list(diffusers.SCHEDULERS)
    else:
        members = vars(module).items()
        classes = [key for key, value in members if isinstance(value, type) and value.__module__ == module_name]
    close = difflib.get_close_matches(name, classes, 1)
    text = f"{module_name} has no {name}; its classes are {', '.join(classes) or 'none'}"
    local, file = os.path.abspath(module_name.split(".")[0]), str(getattr(module, "__file__", None) or "")
    text += f"; did you mean {close[0]}?" if close else ""
    if os.path.exists(f"{local}.py") and os.path.abspath(file) != f"{local}.py":
        text += f"; the {os.path.basename(local)}.py here is hidden by {file or 'a built-in module'}: rename it"
    return text


def _made(found: Any, given: dict[str, Any], target: str) -> Any:
    """The scheduler itself: a class or a function is called with the options, a scheduler of diffusers gets its adapter."""
    from . import diffusers

    if diffusers.is_scheduler(found):
        return diffusers.wrap(found, **given)
    if isinstance(found, type) or (callable(found) and not offers(found, ["alpha_bar"])):
        made = _called(found, given, target)
        return diffusers.wrap(made) if diffusers.is_scheduler(made) else made
    if given:
        raise ValueError(f"options: {target} is an object already made, which takes none, got {given}")
    return found


def _called(make: Any, given: dict[str, Any], target: str) -> Any:
    """The object made with the options. ValueError for one that it does not take, or takes and makes nothing of."""
    named, rest = _parameters(make)
    if not rest and (wrong := [name for name in given if name not in named]):
        close = difflib.get_close_matches(wrong[0], named, 1)
        raise ValueError(
            f"options: {target} takes {', '.join(named) or 'none'}, got {', '.join(wrong)}"
            + (f"; did you mean {close[0]}?" if close else "")
        )
    made = make(**given)
    for name in given:
        if name not in named and _same(made, make, {key: value for key, value in given.items() if key != name}):
            raise ValueError(
                f"options: {name}={given[name]} changes nothing in what {target} makes; leave it out, or check the spelling"
            )
    return made


def _parameters(make: Any) -> tuple[list[str], bool]:
    """The keyword parameters that a class (or those it is made from) or a function names, and whether it takes any other."""
    calls = [vars(c)["__init__"] for c in make.__mro__ if "__init__" in vars(c)] if isinstance(make, type) else [make]
    named: list[str] = []
    for call in calls:
        try:
            parameters = list(inspect.signature(call).parameters.values())
        except (TypeError, ValueError):  # one that Python cannot look into
            return named, True
        parameters = parameters[1:] if isinstance(make, type) else parameters
        named += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            return named, call is not calls[0]
    return named, True


def _same(made: Any, make: Any, given: dict[str, Any]) -> bool:
    """Whether made with these options the object is the same, byte for byte; False if that cannot be known."""
    with suppress(Exception, SystemExit):
        return pickle.dumps(vars(made)) == pickle.dumps(vars(make(**given)))
    return False
