"""How good a run is: of samples, of a bound, of a classifier."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .options import GUIDANCE, changed, loaded, other_run, print_result, refuse, same_run

__all__ = ["evaluate"]

_OF_SAMPLES = (
    "n", "nll", "nll_steps", "flow", "flow_steps", "bins", "first_variance", "judge", "classifier", *GUIDANCE
)  # options  # fmt: skip


def evaluate(options: argparse.Namespace) -> None:
    """Frechet distance in pixel space beside its floor and its ceiling; the classes covered, and of a model with classes the
    distance of each; for the mixture the error of eps beside the perfect denoiser's. With --judge the share of samples in
    which a classifier sees the class asked for. With --nll the variational bound in bits per dimension, term by term, of a
    model with classes given the label of each image; with --flow also the likelihood by the probability-flow ODE, and a
    warning where its steps are too long. Of a model that enlarges: a sample of each held-out image made small, beside that
    image and plain interpolation. Of a classifier: its accuracy on held-out images in noise, for ten values of t, beside
    chance. Of a model with a bound of its own, such as a variational autoencoder: that bound, term by term."""
    from ..evaluation import enlarging_errors, judged_accuracy
    from ..evaluation import evaluate as measure
    from ..evaluation.metrics import check_evaluable
    from ..objectives import Classification
    from ..sampling import sample as draw
    from ..systems import system_of
    from ..training import conditions_to_show, load_state
    from ..training.judge import judge_of

    run = load_state(options.checkpoint)
    if system_of(run[0].objective):
        _evaluate_system(options, *run)
        return
    if isinstance(run[0].objective, Classification):
        _evaluate_classifier(options, *run)
        return
    config, state, model = loaded(options, *run)
    data = _held_out(options, config, model.shape)
    n = _samples_to_measure(options, model, data)
    check_evaluable(data, n)
    bins = _checked_likelihood(options, data.held_out, config.schedule.T)
    judge = None
    if options.judge:
        if options.classifier is not None and same_run(options.judge, options.classifier):
            raise ValueError(
                f"--judge: expected a classifier that does not guide, got that of --classifier, {options.judge}; train "
                "another, with the preset digits-judge or on other data"
            )
        judge = judge_of(*other_run("judge", options.judge), model, config.data.classes)
    asked, originals = conditions_to_show(model, n, data)
    given = _conditions_of_data(model, data) if options.nll or options.flow else {}
    if judge and "label" not in asked:
        raise ValueError(f"--judge: expected data with labels, got {data.name} without; leave it out")
    x = draw(model, n, options.seed, asked, progress=not options.quiet)
    metrics = {"step": state.step, **measure(model, x, data, options.seed, asked.get("label"))}
    if "low_res" in asked and originals is not None:
        metrics |= enlarging_errors(x, asked["low_res"], originals, data.held_out)
    if judge:
        metrics |= judged_accuracy(judge, x, asked["label"])
    if options.nll:
        from ..evaluation import nll, plot_nll

        bound = nll(
            model, data.held_out, options.seed, bins=bins, steps=options.nll_steps,
            first_variance=options.first_variance or "guided-diffusion", progress=not options.quiet, conditions=given,
        )  # fmt: skip
        metrics |= bound if options.json else {k: v for k, v in bound.items() if not isinstance(v, list)}
        if options.plot:
            Path(options.plot).parent.mkdir(parents=True, exist_ok=True)
            plot_nll(bound, options.plot)
    if options.flow:
        from ..evaluation import flow_nll

        metrics |= flow_nll(
            model,
            data.held_out,
            options.seed,
            options.flow_steps,
            bins=bins,
            progress=not options.quiet,
            conditions=given,
        )
    print_result(options, metrics)


def _samples_to_measure(options: argparse.Namespace, model: Any, data: Any) -> int:
    """How many: --n, or 512, but of a model that enlarges one for each held-out image, of which there may be fewer."""
    from ..sampling import conditions_taken

    if options.n is not None:
        return int(options.n)
    enlarges = "low_res" in conditions_taken(model.networks, model.objective)
    return min(512, len(data.held_out)) or 512 if enlarges else 512


def _conditions_of_data(model: Any, data: Any) -> dict[str, Any]:
    """What the bound of the held-out samples is given: their labels where the model reads some, and their small images.
    ValueError where the model asks for more, or for other labels."""
    from ..sampling import check_conditions, conditions_of

    model = model._replace(classifier=None)
    labels = {} if data.held_out_labels is None else {"label": data.held_out_labels}
    given = conditions_of(model, {"x": data.held_out, **labels})
    check_conditions(model.networks, model.objective, given, len(data.held_out))
    return dict(given)


def _evaluate_system(options: argparse.Namespace, config: Any, state: Any) -> None:
    """The bound of a system term by term, as lines or JSON, and its picture with --plot."""
    from ..systems import measure
    from ..training import system_model

    refuse(options, _OF_SAMPLES, "a run of denoising", type(config.objective).__name__)
    if any(change.startswith("sample.") for change in options.set):
        refuse(options, ("set",), "a run of denoising", type(config.objective).__name__)
    config = changed(config, options)
    model = system_model(config, state)
    data = _held_out(options, config, model.shape)
    if not len(data.held_out):
        raise ValueError(f"--data: expected samples that are held out, got none in {data.name}; give others")
    _check_plot(options)
    found = measure(model, data, options.seed, progress=not options.quiet)
    if options.plot:
        Path(options.plot).parent.mkdir(parents=True, exist_ok=True)
        model.module.plot(model.networks, model.objective, data, found, options.plot)
    lines = found if options.json else {name: value for name, value in found.items() if not isinstance(value, list)}
    print_result(options, {"step": state.step, **lines})


def _evaluate_classifier(options: argparse.Namespace, config: Any, state: Any) -> None:
    """The accuracy of a classifier, as lines or JSON, and drawn with --plot."""
    from ..evaluation.accuracy import accuracy_lines, classifier_accuracy, plot_accuracy
    from ..models import inputs

    config = changed(config, options)
    refuse(options, (*_OF_SAMPLES, "set"), "a run that samples are drawn of", "a classifier")
    network = state.networks(config)["classifier"]
    data = _held_out(options, config, inputs(network.config)["x"].shape)
    if data.labels is None or not len(data.held_out):
        lacks = "none held out" if data.labels is not None else "none with labels"
        raise ValueError(
            f"--data: expected labelled images, some of them held out, got {lacks} in {data.name}; give others"
        )
    _check_plot(options)
    found = classifier_accuracy(
        network, config.objective, data.held_out, data.held_out_labels, (data.x, data.labels), options.seed,
        engine=config.engine, dtype=config.dtype, progress=not options.quiet,
    )  # fmt: skip
    if options.plot:
        Path(options.plot).parent.mkdir(parents=True, exist_ok=True)
        plot_accuracy(found, options.plot)
    print_result(options, {"step": state.step, **(found if options.json else accuracy_lines(found))})


def _held_out(options: argparse.Namespace, config: Any, shape: tuple[int, ...]) -> Any:
    """The data to measure with. ValueError unless they have a split that is held out, and samples of this shape."""
    from ..data import Dataset, load

    data = load(options.data or config.data.source)
    if not isinstance(data, Dataset):
        raise ValueError(
            f"--data: expected data with a split that is held out, got {options.data or config.data.source}; give a file, a "
            "folder or a set of ours"
        )
    if data.shape != shape:
        raise ValueError(f"--data: expected samples of {shape}, the model's shape, got {data.shape}")
    return data


def _check_plot(options: argparse.Namespace) -> None:
    """Whether --plot can be drawn: said before the work."""
    from ..plotting import new_figure
    from ..storage import check_file

    if options.plot:
        check_file("--plot", options.plot, [".png", ".pdf", ".svg"])
        new_figure(1, 1)  # says at once if matplotlib is missing


def _checked_likelihood(options: argparse.Namespace, x: Any, T: int) -> int | None:
    """The levels of the data, once the options about the bound and the flow are seen to be right: each takes a minute."""
    flow = options.flow
    for given, name in (
        (options.nll, "plot"), (options.nll or flow, "bins"), (options.nll, "first_variance"), (options.nll, "nll_steps"),
        (flow, "flow_steps"),
    ):  # fmt: skip
        if not given and getattr(options, name) is not None:
            needs = "--flow" if name == "flow_steps" else "--nll"
            raise ValueError(f"--{name.replace('_', '-')}: expected with {needs}, got it alone; add {needs}")
    if not (options.nll or flow):
        return None
    from ..evaluation.likelihood import levels

    for name in ("nll_steps", "flow_steps"):
        if (steps := getattr(options, name)) is not None and not 1 <= steps <= T:
            raise ValueError(f"--{name.replace('_', '-')}: expected from 1 to schedule.T = {T} steps, got {steps}")
    _check_plot(options)
    if options.bins is None or options.bins == "density":
        return None if options.bins else levels(x)
    if not options.bins.isdecimal() or int(options.bins) < 2 or x.ndim == 2:
        expected = "density, since points have no levels" if x.ndim == 2 else "a number of levels from 2 on, or density"
        raise ValueError(f"--bins: expected {expected}, got {options.bins!r}")
    return levels(x, (int(options.bins),))
