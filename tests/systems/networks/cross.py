"""A denoiser of vectors, conditioned on the timestep and, by cross attention, on a sequence.   [LDM] section 3.3"""

import sys
from dataclasses import dataclass

from refdiff.models import Input, blocks, linear_layout, register


@dataclass(frozen=True)
class Cross:
    """size: of x; width; layers: residual layers, each followed by cross attention; context: width of the sequence."""

    size: int = 4
    width: int = 32
    layers: int = 2
    context: int = 16

    @property
    def shape(self):
        return (self.size,)


def inputs(config):
    return {"x": Input(config.shape), **blocks.conditioning_inputs(), "context": Input((-1, config.context))}


def layout(config):
    w = config.width
    p = {**blocks.conditioning_layout(w, w), "linear_in": linear_layout(config.size, w)}
    for i in range(config.layers):
        p[f"layer{i}"] = {name: linear_layout(w, w) for name in ("linear1", "time", "linear2", "q")}
        p[f"layer{i}"] |= {name: linear_layout(config.context, w) for name in ("k", "v")} | {"o": linear_layout(w, w)}
    return p | {"linear_out": linear_layout(w, config.size)}


def forward(engine, net, inputs, key=None):
    """x (N, size), t (N,), context (N, L, context) -> (N, size)"""
    saved = {}
    emb, saved["conditioning"] = blocks.conditioning(engine, net.p, inputs, "ddpm")
    h, saved["linear_in"] = engine.linear(inputs["x"], **net.p["linear_in"])
    for i in range(net.config.layers):
        p, s = net.p[f"layer{i}"], saved.setdefault(f"layer{i}", {})
        r, s["silu1"] = engine.silu(h)
        r, s["linear1"] = engine.linear(r, **p["linear1"])
        e, s["time"] = engine.linear(emb, **p["time"])
        r, s["add_time"] = engine.add(r, e)
        r, s["silu2"] = engine.silu(r)
        r, s["linear2"] = engine.linear(r, **p["linear2"])
        h, s["add"] = engine.add(h, r)
        q, s["q"] = engine.linear(h, **p["q"])
        q, s["one"] = engine.reshape(q, (q.shape[0], 1, q.shape[1]))
        k, s["k"] = engine.linear(inputs["context"], **p["k"])
        v, s["v"] = engine.linear(inputs["context"], **p["v"])
        a, s["attention"] = engine.attention(q, k, v)
        a, s["none"] = engine.reshape(a, (a.shape[0], a.shape[2]))
        a, s["o"] = engine.linear(a, **p["o"])
        h, s["add_context"] = engine.add(h, a)
    h, saved["silu_out"] = engine.silu(h)
    y, saved["linear_out"] = engine.linear(h, **net.p["linear_out"])
    return y, saved


def backward(engine, net, dy, saved, wrt=()):
    g, dembs, dcontext, told = {}, [], [], "context" in wrt
    dh, g["linear_out"] = engine.linear_backward(dy, saved["linear_out"])
    dh = engine.silu_backward(dh, saved["silu_out"])
    for i in reversed(range(net.config.layers)):
        s, of = saved[f"layer{i}"], g.setdefault(f"layer{i}", {})
        dh, da = engine.add_backward(dh, s["add_context"])
        da, of["o"] = engine.linear_backward(da, s["o"])
        da = engine.reshape_backward(da, s["none"])
        dq, dk, dv = engine.attention_backward(da, s["attention"])
        dq = engine.reshape_backward(dq, s["one"])
        dq, of["q"] = engine.linear_backward(dq, s["q"])
        dk, of["k"] = engine.linear_backward(dk, s["k"], needs_dx=told)
        dv, of["v"] = engine.linear_backward(dv, s["v"], needs_dx=told)
        dcontext += [dk, dv]
        dh = engine.accumulate(dh, dq)
        dh, dr = engine.add_backward(dh, s["add"])
        dr, of["linear2"] = engine.linear_backward(dr, s["linear2"])
        dr = engine.silu_backward(dr, s["silu2"])
        dr, de = engine.add_backward(dr, s["add_time"])
        demb, of["time"] = engine.linear_backward(de, s["time"])
        dembs.append(demb)
        dr, of["linear1"] = engine.linear_backward(dr, s["linear1"])
        dh = engine.accumulate(dh, engine.silu_backward(dr, s["silu1"]))
    dx, g["linear_in"] = engine.linear_backward(dh, saved["linear_in"], needs_dx="x" in wrt)
    dt, of_time = blocks.conditioning_backward(engine, engine.accumulate(*dembs), saved["conditioning"], "t" in wrt)
    dinputs = {"x": dx, "t": dt} | ({"context": engine.accumulate(*dcontext)} if told else {})
    return {name: dinputs[name] for name in wrt}, g | of_time


register("cross", Cross, sys.modules[__name__])
