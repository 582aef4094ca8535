"""What a caption says: a row of a table for each word, and a layer upon it."""

import sys
from dataclasses import dataclass

from refdiff.models import Input, Parameter, linear_layout, register


@dataclass(frozen=True)
class Text:
    """words: in the vocabulary, with the one for no caption; length: of a caption; width: of what is said of a word."""

    words: int = 11
    length: int = 3
    width: int = 16


def inputs(config):
    return {"tokens": Input((config.length,), "int")}


def layout(config):
    w = config.width
    table = Parameter((config.words, w), fan=4.0)
    return {"word": {"weight": table}, "linear1": linear_layout(w, w), "linear2": linear_layout(w, w)}


def forward(engine, net, inputs, key=None):
    """tokens (N, L) -> (N, L, width)"""
    saved = {}
    h, saved["word"] = engine.embedding(inputs["tokens"], net.p["word"]["weight"])
    r, saved["linear1"] = engine.linear(h, **net.p["linear1"])
    r, saved["silu"] = engine.silu(r)
    r, saved["linear2"] = engine.linear(r, **net.p["linear2"])
    h, saved["add"] = engine.add(h, r)
    return h, saved


def backward(engine, net, dy, saved, wrt=()):
    g = {}
    dh, dr = engine.add_backward(dy, saved["add"])
    dr, g["linear2"] = engine.linear_backward(dr, saved["linear2"])
    dr = engine.silu_backward(dr, saved["silu"])
    dr, g["linear1"] = engine.linear_backward(dr, saved["linear1"])
    g["word"] = engine.embedding_backward(engine.accumulate(dh, dr), saved["word"])
    return {}, g


register("text", Text, sys.modules[__name__])
