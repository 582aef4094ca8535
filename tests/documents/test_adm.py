"""docs/adm.md: the table of published models is that of the presets, and what it says of steps is so."""

import re

import numpy as np
import pytest
from documents.reading import documents

from refdiff.config import PRESETS
from refdiff.models import MODELS, count, layout
from refdiff.process import SCHEDULES, SPACINGS, posterior_variance, step_variance

PAGE = documents()["docs/adm.md"]
PUBLISHED = [name for name in MODELS if name.startswith(("iddpm-", "adm"))]


def row(name):
    """A line of the table of published models."""
    model = MODELS[name]
    classes = f"{model.classes:,}" if model.classes else "none"
    return (
        f"| `{name}` | {model.size} | {model.width} | {', '.join(map(str, model.multipliers))} | {model.blocks} | "
        f"{', '.join(map(str, model.attention))} | "
        f"{f'{model.head_channels} channels each' if model.head_channels else model.heads} | {model.qkv} | {classes} | "
        f"{count(layout(model)):,} |"
    )


def ratios(spacing, steps=25):
    """beta over the posterior's variance of each step of the chain but the last, by the t that it leads to."""
    schedule = SCHEDULES["cosine"](T=1000)
    t = SPACINGS[spacing](schedule, steps).tolist()
    pairs = zip(t[1:], t[:-1], strict=True)
    return {s: float(step_variance(schedule, t, s) / posterior_variance(schedule, t, s)) for t, s in pairs}


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_published_model_stands_in_the_table(name):
    assert row(name) in PAGE.splitlines()


def test_the_table_has_no_other_rows():
    assert re.findall(r"^\| `((?:iddpm-|adm)[\w-]+)` \|", PAGE, re.MULTILINE) == PUBLISHED
    assert set(PUBLISHED) <= set(PRESETS)


def test_the_step_that_is_out_of_proportion():
    words = " ".join(PAGE.split())
    uniform = ratios("uniform")
    assert next(iter(uniform)) == 1
    assert SPACINGS["uniform"](SCHEDULES["cosine"](T=1000), 25)[1] == 43
    assert f"there beta is {uniform[1]:.0f} times the posterior's variance" in words
    one = ratios("uniform", 1000)[42]
    assert f"for t = 43 the two variances differ by {one - 1:.0%}".replace("%", " %") in words
    others = np.concatenate([list(ratios(spacing).values()) for spacing in ("quadratic", "trailing")])
    assert f"beta is at most {others.max():.1f} times the posterior's variance" in words
    assert max(list(uniform.values())[1:]) < 3.4
