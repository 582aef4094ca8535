"""Two networks of a few operations, made known as a user's are: one says what labels mean, the other denoises with it."""

from dataclasses import dataclass
from types import SimpleNamespace

from refdiff.models import Input, register
from refdiff.models.parameters import Parameter, linear_layout


@dataclass(frozen=True)
class ToyText:
    rows: int = 5
    width: int = 4


def text_inputs(config):
    return {"tokens": Input((), "int")}


def text_layout(config):
    return {
        "table": Parameter((config.rows, config.width), fan=2.0),
        "scale": linear_layout(config.width, config.width),
    }


def text_forward(engine, net, inputs, key=None):
    """A row of a table, through a linear layer."""
    saved = {}
    y, saved["table"] = engine.embedding(inputs["tokens"], net.p["table"])
    y, saved["scale"] = engine.linear(y, **net.p["scale"])
    return y, saved


def text_backward(engine, net, dy, saved, wrt=()):
    g = {}
    dy, g["scale"] = engine.linear_backward(dy, saved["scale"])
    g["table"] = engine.embedding_backward(dy, saved["table"])["weight"]
    return {}, g


@dataclass(frozen=True)
class ToyDenoiser:
    size: int = 6
    width: int = 4
    told: bool = True

    @property
    def shape(self):
        return (self.size,)


def denoiser_inputs(config):
    return {"x": Input((config.size,))} | ({"context": Input((config.width,))} if config.told else {})


def denoiser_layout(config):
    given = config.size + (config.width if config.told else 0)
    return {"in": linear_layout(given, 8), "out": linear_layout(8, config.size)}


def denoiser_forward(engine, net, inputs, key=None):
    """W2 silu(W1 [x, context])."""
    saved, h = {}, inputs["x"]
    if net.config.told:
        h, saved["concat"] = engine.concat(h, inputs["context"])
    h, saved["in"] = engine.linear(h, **net.p["in"])
    h, saved["silu"] = engine.silu(h)
    y, saved["out"] = engine.linear(h, **net.p["out"])
    return y, saved


def denoiser_backward(engine, net, dy, saved, wrt=()):
    g = {}
    dh, g["out"] = engine.linear_backward(dy, saved["out"])
    dh = engine.silu_backward(dh, saved["silu"])
    dx, g["in"] = engine.linear_backward(dh, saved["in"])
    d = {"x": dx}
    if net.config.told:
        d["x"], d["context"] = engine.concat_backward(dx, saved["concat"])
    return {name: d[name] for name in wrt}, g


def _module(inputs, layout, forward, backward):
    return SimpleNamespace(inputs=inputs, layout=layout, forward=forward, backward=backward)


register("toy_text", ToyText, _module(text_inputs, text_layout, text_forward, text_backward))
register(
    "toy_denoiser", ToyDenoiser, _module(denoiser_inputs, denoiser_layout, denoiser_forward, denoiser_backward)
)  # fmt: skip


@dataclass(frozen=True)
class ToyClassifier:
    size: int = 8
    channels: int = 1
    classes: int = 10
    width: int = 16


def classifier_inputs(config):
    return {"x": Input((config.size, config.size, config.channels)), "t": Input((), "int")}


def classifier_layout(config):
    return {
        "in": linear_layout(config.size**2 * config.channels, config.width),
        "time": linear_layout(config.width, config.width),
        "out": linear_layout(config.width, config.classes),
    }


def classifier_forward(engine, net, inputs, key=None):
    """W3 silu(W1 x + W2 e(t))."""
    saved, x, t = {}, inputs["x"], inputs["t"]
    h, saved["reshape"] = engine.reshape(x, (x.shape[0], net.config.size**2 * net.config.channels))
    h, saved["in"] = engine.linear(h, **net.p["in"])
    e, _ = engine.time_embedding(t, net.config.width, dtype=x.dtype)
    e, saved["time"] = engine.linear(e, **net.p["time"])
    h, saved["add"] = engine.add(h, e)
    h, saved["silu"] = engine.silu(h)
    y, saved["out"] = engine.linear(h, **net.p["out"])
    return y, saved


def classifier_backward(engine, net, dy, saved, wrt=()):
    g = {}
    dh, g["out"] = engine.linear_backward(dy, saved["out"])
    dh, de = engine.add_backward(engine.silu_backward(dh, saved["silu"]), saved["add"])
    _, g["time"] = engine.linear_backward(de, saved["time"])
    dx, g["in"] = engine.linear_backward(dh, saved["in"])
    d = {"x": engine.reshape_backward(dx, saved["reshape"])}
    return {name: d[name] for name in wrt}, g


register(
    "toy_classifier", ToyClassifier,
    _module(classifier_inputs, classifier_layout, classifier_forward, classifier_backward),
)  # fmt: skip
