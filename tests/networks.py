"""A network as a function of (p, x, t), for the tests that ask for the gradients of x and p alone; and a trained model of
given weights."""

from refdiff import models, training


def inputs(config, x, t):
    """With a label that follows from t, none among them, and a small image that follows from x, where it is told these."""
    batch = {"x": x, "t": t}
    told = models.inputs(config)
    if "label" in told:
        batch["label"] = t % (config.classes + getattr(config, "null_label", True))
    if "low_res" in told:
        height, width, _ = told["low_res"].shape
        batch["low_res"] = x.real[:, -height:, -width:].astype(x.real.dtype)
    return batch


def trained(config, p=None):
    """The denoiser of a configuration with these weights, or its first ones, as samples are made with it."""
    return training.trained(config, training.State.first(config, {"denoiser": p} if p else None))


def forward(engine, config, p, x, t, key=None):
    return models.forward(engine, models.Network(config, p), inputs(config, x, t), key)


def predict(engine, config, p, x, t):
    return models.predict(engine, models.Network(config, p), inputs(config, x, t))


def backward(engine, config, dy, saved, needs_dx=True):
    """-> dx, None unless needs_dx, and the gradients of p."""
    dinputs, g = models.backward(engine, models.Network(config, {}), dy, saved, ("x",) if needs_dx else ())
    return dinputs.get("x"), g
