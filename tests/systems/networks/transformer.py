"""A transformer over tokens: embedding, position, and layers of attention and a perceptron. Its operations are those of the
reference engine and of `operations`.   [Attention]"""

import sys
from dataclasses import dataclass

import numpy as np

from refdiff.models import Input, Parameter, linear_layout, register
from systems import operations


@dataclass(frozen=True)
class Transformer:
    """words: in the vocabulary; length: of a text; width, layers; out: of the head, 0 for the states themselves; causal: a
    token sees none after it."""

    words: int = 10
    length: int = 4
    width: int = 16
    layers: int = 1
    out: int = 0
    causal: bool = True


def inputs(config):
    return {"tokens": Input((config.length,), "int")}


def layout(config):
    w = config.width
    p = {name: {"weight": Parameter((n, w), fan=4.0)} for name, n in (("word", config.words), ("place", config.length))}
    for i in range(config.layers):
        p[f"layer{i}"] = {name: linear_layout(w, w) for name in "qkvo"}
        p[f"layer{i}"] |= {"linear1": linear_layout(w, 2 * w), "linear2": linear_layout(2 * w, w)}
    return p | ({"head": linear_layout(w, config.out)} if config.out else {})


def forward(engine, net, inputs, key=None):
    """tokens (N, L) -> (N, L, out or width)"""
    ids, saved = inputs["tokens"], {}
    n, length = ids.shape
    mask = np.tri(length, dtype=bool) if net.config.causal else np.ones((length, length), bool)
    h, saved["word"] = engine.embedding(ids, net.p["word"]["weight"])
    e, saved["place"] = engine.embedding(np.broadcast_to(np.arange(length), (n, length)), net.p["place"]["weight"])
    h, saved["add"] = engine.add(h, e)
    for i in range(net.config.layers):
        p, s = net.p[f"layer{i}"], saved.setdefault(f"layer{i}", {})
        (q, s["q"]), (k, s["k"]), (v, s["v"]) = (engine.linear(h, **p[name]) for name in "qkv")
        a, s["attention"] = operations.masked_attention(q, k, v, mask)
        a, s["o"] = engine.linear(a, **p["o"])
        h, s["add1"] = engine.add(h, a)
        r, s["linear1"] = engine.linear(h, **p["linear1"])
        r, s["silu"] = engine.silu(r)
        r, s["linear2"] = engine.linear(r, **p["linear2"])
        h, s["add2"] = engine.add(h, r)
    if net.config.out:
        h, saved["head"] = engine.linear(h, **net.p["head"])
    return h, saved


def backward(engine, net, dy, saved, wrt=()):
    g, dh = {}, dy
    if net.config.out:
        dh, g["head"] = engine.linear_backward(dh, saved["head"])
    for i in reversed(range(net.config.layers)):
        s, of = saved[f"layer{i}"], g.setdefault(f"layer{i}", {})
        dh, dr = engine.add_backward(dh, s["add2"])
        dr, of["linear2"] = engine.linear_backward(dr, s["linear2"])
        dr = engine.silu_backward(dr, s["silu"])
        dr, of["linear1"] = engine.linear_backward(dr, s["linear1"])
        dh = engine.accumulate(dh, dr)
        dh, da = engine.add_backward(dh, s["add1"])
        da, of["o"] = engine.linear_backward(da, s["o"])
        for name, d in zip("qkv", operations.masked_attention_backward(da, s["attention"]), strict=True):
            d, of[name] = engine.linear_backward(d, s[name])
            dh = engine.accumulate(dh, d)
    dh, de = engine.add_backward(dh, saved["add"])
    g["word"] = engine.embedding_backward(dh, saved["word"])
    g["place"] = engine.embedding_backward(de, saved["place"])
    return {}, g


register("transformer", Transformer, sys.modules[__name__])
