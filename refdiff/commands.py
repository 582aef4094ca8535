"""What each command does: the work behind `cli`, printed as lines or as JSON. Returns the exit status where it is not 0."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .version import __version__

__all__ = ["audit", "bench", "demo", "evaluate", "info", "sample", "train", "verify"]

GUIDANCE = ("guidance", "guidance_interval", "guidance_rescale", "classifier_scale")  # options that are keys of sample


def train(options: argparse.Namespace) -> None:
    """Train a model and keep the run in a folder."""
    from .training import train as run

    config = _config(options)
    state = run(config, options.out, resume=options.resume, force=options.force, progress=not options.quiet)
    _print(options, {"out": options.out, "steps": state.step, "samples_seen": state.samples_seen})


def sample(options: argparse.Namespace) -> None:
    """Sample from a trained model: a PNG grid, a folder of PNGs, or an npz; and the strip from noise to image. --set chooses
    how. A model with classes, or guided by a --classifier, draws one row a class, or the class of --label; one that enlarges
    draws a sample for each image of --low-res."""
    from .sampling import sample as draw
    from .storage import check_file, check_folder, check_place, save_enlarged, save_folder, save_grid, save_npz
    from .training import load_state
    from .training.demo import save_trajectory

    _, _, model = _loaded(options, *load_state(options.checkpoint))
    conditions, n, columns, originals = _conditions(options, model)
    out = Path(options.out)
    suffix = "" if options.out.endswith("/") or out.is_dir() else out.suffix.lower()
    if len(model.shape) != 3 and (suffix != ".npz" or options.trajectory):
        raise ValueError(f"--out: expected a name ending in .npz, since this model makes points, not images, got {out}")
    if suffix not in (".png", ".npz", ""):
        raise ValueError(
            f"--out: expected a .png (a grid), a .npz (an array) or a folder (single PNGs), got {out}; "
            f"a slash says that it is a folder: {out}/"
        )
    check_place("--out", out, options.force)
    if suffix == "":
        check_folder(out, n)
    if options.trajectory:
        check_file("--trajectory", options.trajectory, [".png"], options.force)
    x = draw(model, n, options.seed, conditions, progress=not options.quiet)
    out.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".png" and options.low_res:
        save_enlarged(out, conditions["low_res"], x, originals)
    elif suffix == ".png":
        save_grid(out, x, columns)
    else:
        {".npz": save_npz, "": save_folder}[suffix](out, x)
    if options.trajectory:
        Path(options.trajectory).parent.mkdir(parents=True, exist_ok=True)
        save_trajectory(options.trajectory, model, options.seed, None if columns else conditions)
    _print(options, {"out": str(out), "samples": len(x), "shape": list(x.shape[1:]), "trajectory": options.trajectory})


def _conditions(options: argparse.Namespace, model: Any) -> tuple[dict[str, Any], int, int | None, Any]:
    """What the samples are told, how many there are, the columns of a grid, without --label one row a class, and the images
    of which those of --low-res were made, if known."""
    from .sampling import conditions_taken

    classes, enlarges = model.classes, "low_res" in conditions_taken(model.networks, model.objective)
    if options.label is not None and not 0 <= options.label < classes:
        raise ValueError(f"--label: expected a class from 0 to {classes - 1}, got {options.label}")
    if enlarges or options.low_res:
        conditions, originals = _low_res(options, model, enlarges)
        return conditions, len(conditions["low_res"]), None, originals
    n = 64 if options.n is None else options.n
    if not classes:
        return {}, n, None, None
    if options.label is None:
        n = 8 * classes if options.n is None else options.n
        if n % classes:
            raise ValueError(
                f"--n: expected a multiple of {classes}, since each class has a row, got {n}; or add --label"
            )
        return {"label": [i * classes // n for i in range(n)]}, n, n // classes, None
    return {"label": options.label}, n, None, None


def _low_res(options: argparse.Namespace, model: Any, enlarges: bool) -> tuple[dict[str, Any], Any]:
    """The first --n images of --low-res with the labels of --label or else their own, and the large images that they were
    made of, or None. ValueError unless the model enlarges images of this size."""
    from .data import load_images
    from .sampling import conditions_of, conditions_taken

    if not enlarges:
        raise ValueError("--low-res: expected a model that enlarges images, got one that does not; leave it out")
    takes = conditions_taken(model.networks, model.objective)
    small, made = takes["low_res"].shape, bool(model.objective.downscale)
    sizes = f"images of {small}, which this model enlarges"
    sizes += f", or of its own {model.shape}, which are averaged down" if made else ""
    if not options.low_res:
        raise ValueError(
            f"--low-res: expected {sizes}, got none; give a file, a folder or a data set, as --low-res digits"
        )
    try:
        x, labels = load_images(options.low_res)
    except ValueError as error:
        raise ValueError(str(error).replace("name_or_path:", "--low-res:", 1)) from None
    if x.shape[1:] != small and not (made and x.shape[1:] == model.shape):
        raise ValueError(f"--low-res: expected {sizes}, got {x.shape[1:]} in {options.low_res}")
    n = len(x) if options.n is None else options.n
    if not 0 < n <= len(x):
        raise ValueError(f"--n: expected from 1 to {len(x)}, the images of --low-res, got {n}")
    x, originals, batch = x[:n], None, {}
    if x.shape[1:] == small:
        batch["low_res"] = x
    else:
        batch, originals = conditions_of(model, {"x": x}), x
        if not options.quiet:
            print(f"refdiff: {options.low_res}: images of {x.shape[1:]}, averaged down to {small}", file=sys.stderr)
    if "label" in takes or model.classifier:
        if options.label is not None:
            batch["label"] = options.label
        elif labels is not None:
            batch["label"] = labels[:n]
        elif not getattr(model.networks["denoiser"].config, "null_label", True) or model.classifier:
            raise ValueError(
                f"--label: expected the class of the images, which this model asks for, got none, nor any in "
                f"{options.low_res}; add --label"
            )
    return batch, originals


def evaluate(options: argparse.Namespace) -> None:
    """Frechet distance in pixel space beside its floor and its ceiling; the classes covered, and of a model with classes the
    distance of each; for the mixture the error of eps beside the perfect denoiser's. With --judge the share of samples in
    which a classifier sees the class asked for. With --nll the variational bound in bits per dimension, term by term, of a
    model with classes given the label of each image. Of a model that enlarges: a sample of each held-out image made small,
    beside that image and plain interpolation. Of a classifier: its accuracy on held-out images in noise, for ten values of
    t, beside chance."""
    from .evaluation import enlarging_errors, judged_accuracy
    from .evaluation import evaluate as measure
    from .evaluation.metrics import check_evaluable
    from .objectives import Classification
    from .sampling import check_conditions
    from .sampling import sample as draw
    from .training import conditions_to_show, load_state
    from .training.judge import judge_of

    run = load_state(options.checkpoint)
    if isinstance(run[0].objective, Classification):
        _evaluate_classifier(options, *run)
        return
    config, state, model = _loaded(options, *run)
    data = _held_out(options, config, model.shape)
    n = _samples_to_measure(options, model, data)
    check_evaluable(data, n)
    bins = _checked_likelihood(options, data.held_out, config.schedule.T)
    judge = judge_of(*load_state(options.judge), model) if options.judge else None
    asked, originals = conditions_to_show(model, n, data)
    check_conditions(model.networks, model.objective, asked, n, model.classifier)
    given = _conditions_of_data(model, data) if options.nll else {}
    if judge and "label" not in asked:
        raise ValueError(f"--judge: expected data with labels, got {data.name} without; leave it out")
    x = draw(model, n, options.seed, asked, progress=not options.quiet)
    metrics = {"step": state.step, **measure(model, x, data, options.seed, asked.get("label"))}
    if "low_res" in asked and originals is not None:
        metrics |= enlarging_errors(x, asked["low_res"], originals, data.held_out)
    if judge:
        metrics |= judged_accuracy(judge, x, asked["label"])
    if options.nll:
        from .evaluation import nll, plot_nll

        bound = nll(
            model, data.held_out, options.seed, bins=bins, steps=options.nll_steps,
            first_variance=options.first_variance or "guided-diffusion", progress=not options.quiet, conditions=given,
        )  # fmt: skip
        metrics |= bound if options.json else {k: v for k, v in bound.items() if not isinstance(v, list)}
        if options.plot:
            Path(options.plot).parent.mkdir(parents=True, exist_ok=True)
            plot_nll(bound, options.plot)
    _print(options, metrics)


def _samples_to_measure(options: argparse.Namespace, model: Any, data: Any) -> int:
    """How many: --n, or 512, but of a model that enlarges one for each held-out image, of which there may be fewer."""
    from .sampling import conditions_taken

    if options.n is not None:
        return int(options.n)
    enlarges = "low_res" in conditions_taken(model.networks, model.objective)
    return min(512, len(data.held_out)) or 512 if enlarges else 512


def _conditions_of_data(model: Any, data: Any) -> dict[str, Any]:
    """What the bound of the held-out samples is given: their labels where the model reads some, and their small images.
    ValueError where the model asks for more, or for other labels."""
    from .sampling import check_conditions, conditions_of

    model = model._replace(classifier=None)
    labels = {} if data.held_out_labels is None else {"label": data.held_out_labels}
    given = conditions_of(model, {"x": data.held_out, **labels})
    check_conditions(model.networks, model.objective, given, len(data.held_out))
    return dict(given)


def _evaluate_classifier(options: argparse.Namespace, config: Any, state: Any) -> None:
    """The accuracy of a classifier, as lines or JSON, and drawn with --plot."""
    from .evaluation.accuracy import accuracy_lines, classifier_accuracy, plot_accuracy
    from .models import inputs

    for name in ("n", "nll", "nll_steps", "bins", "first_variance", "judge", "classifier", *GUIDANCE):
        if getattr(options, name) not in (None, False):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag}: expected a run that samples are drawn of, got a classifier; leave it out")
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
    _print(options, {"step": state.step, **(found if options.json else accuracy_lines(found))})


def _held_out(options: argparse.Namespace, config: Any, shape: tuple[int, ...]) -> Any:
    """The data to measure with. ValueError unless they have a split that is held out, and samples of this shape."""
    from .data import Dataset, load

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
    from .plotting import new_figure
    from .storage import check_file

    if options.plot:
        check_file("--plot", options.plot, [".png", ".pdf", ".svg"])
        new_figure(1, 1)  # says at once if matplotlib is missing


def _checked_likelihood(options: argparse.Namespace, x: Any, T: int) -> int | None:
    """The levels of the data, once the options about the bound are seen to be right: it takes a minute."""
    if not options.nll:
        for name in ("plot", "bins", "first_variance", "nll_steps"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')}: expected with --nll, got it alone; add --nll")
        return None
    from .evaluation.likelihood import levels

    if options.nll_steps is not None and not 1 <= options.nll_steps <= T:
        raise ValueError(f"--nll-steps: expected from 1 to schedule.T = {T} steps, got {options.nll_steps}")
    _check_plot(options)
    if options.bins is None or options.bins == "density":
        return None if options.bins else levels(x)
    if not options.bins.isdecimal() or int(options.bins) < 2 or x.ndim == 2:
        expected = "density, since points have no levels" if x.ndim == 2 else "a number of levels from 2 on, or density"
        raise ValueError(f"--bins: expected {expected}, got {options.bins!r}")
    return levels(x, (int(options.bins),))


def info(options: argparse.Namespace) -> None:
    """What a preset or a run is; without a name, what there is to choose from."""
    from . import models
    from .config import PRESETS
    from .config.keys import choices
    from .training import load_state
    from .training.memory import described

    def parameters(config: Any) -> int:
        return sum(models.count(models.layout(network.model)) for network in config.networks.values())

    if options.name is None:
        presets = {name: parameters(config) for name, config in PRESETS.items()}
        known = {key: list(names) for key, names in choices().items()}
        _print(options, {"refdiff": __version__, **known, "presets (parameters)": presets})
        return
    if options.name in PRESETS:
        config, run = PRESETS[options.name], {}
    else:
        if not Path(options.name).exists():
            raise ValueError(
                f"name: expected a preset ({', '.join(PRESETS)}), a run's folder or a checkpoint, got {options.name!r}"
            )
        config, state = load_state(options.name)
        run = {"step": state.step, "samples_seen": state.samples_seen}
    memory = described(config)
    need = {"memory": memory} if options.json else {f"memory of a step (batch {config.train.batch})": memory["text"]}
    _print(options, {"parameters": parameters(config), **need, **run, **config.to_dict()})


def demo(options: argparse.Namespace) -> None:
    """Train on the handwritten digits, draw each class and evaluate, about two minutes: pictures and numbers in a folder."""
    from .training.demo import demo as run

    config = _config(options)
    metrics = run(options.out, config, options.n, options.force, progress=not options.quiet)
    _print(options, {"out": options.out, **metrics})


def verify(options: argparse.Namespace) -> int:
    """Check every claim of docs/equations.md, one line each: the worst error found beside its bound."""
    from .testing.report import line, summary, to_dict
    from .testing.report import verify as run

    verdicts = []
    for verdict in run(random=options.random, match=options.match):
        verdicts.append(verdict)
        if not options.json:
            print(line(verdict, places=True), flush=True)
    if not verdicts:
        raise ValueError(
            f"--match: expected words of a claim, its group, its source or its function, got {options.match!r}; none fits"
        )
    print(json.dumps([to_dict(v) for v in verdicts]) if options.json else summary(verdicts))
    return int(not all(v.holds for v in verdicts))


def audit(options: argparse.Namespace) -> int:
    """Run the claims about schedulers on somebody's: an adapter of yours, or a scheduler of diffusers, as module:Class."""
    from collections import Counter

    from .testing.audit import audit as run
    from .testing.audit import report
    from .testing.checked_scheduler import collected
    from .testing.loading import current_folder_for, load
    from .testing.loading import options as parse

    # What the audited code warns of while it is imported says nothing of the claims.
    with current_folder_for(options.target.partition(":")[0]), collected(Counter()):
        subject = load(options.target, parse(options.options))
        verdicts = run(
            subject,
            match=options.match,
            variance=options.variance,
            all_steps=options.all_steps or None,
            dtype=options.dtype,
        )
    print(report(verdicts, as_json=options.json))
    return int(not all(v.holds for v in verdicts))


def bench(options: argparse.Namespace) -> int:
    """Measure speed: this machine's engines side by side; where a step's time goes; a CUDA kernel of yours beside ours."""
    from .benchmark.command import measured, run

    found, text = run(options)
    print(json.dumps(found) if options.json else text)
    return int(not measured(found))


def _loaded(options: argparse.Namespace, config: Any, state: Any) -> tuple[Any, Any, Any]:
    """The configuration of a run as the options change it, its state, and its model, guided by the classifier that they
    name. ValueError for options of a guidance that the model cannot have."""
    from .training import check_drawable, load_state, trained

    check_drawable(config)
    classes, guide = getattr(config.model, "classes", 0), options.classifier is not None
    for name in ("guidance",) if guide else ("label", "guidance", "guidance_interval", "guidance_rescale"):
        if not classes and getattr(options, name, None) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: expected a model with classes, got one without; leave it out")
    if options.classifier_scale is not None and not guide:
        raise ValueError("--classifier-scale: expected with --classifier, got it alone; add --classifier RUN")
    config = _changed(config, options)
    if guide and options.classifier_scale is None and not config.sample.classifier_scale:
        raise ValueError("--classifier: expected with --classifier-scale, got it alone; add --classifier-scale 1")
    return config, state, trained(config, state, load_state(options.classifier) if guide else None)


def _config(options: argparse.Namespace) -> Any:
    """The configuration that the options describe; that of the run itself when it is only resumed."""
    from .config import Config
    from .training import load_state
    from .training.run import resumable

    changes = list(options.set)
    changes += [
        f"{key}={json.dumps(v)}" for key in ("engine", "dtype", "seed") if (v := getattr(options, key)) is not None
    ]
    if getattr(options, "resume", False) and options.preset is None and options.config is None:
        return load_state(resumable(options.out))[0].changed(changes)
    return Config.resolve(options.preset or "digits", options.config, changes)


def _changed(config: Any, options: argparse.Namespace) -> Any:
    """A loaded run's configuration with the options' engine and sampling keys, and where frozen networks are."""
    from .training.frozen import places

    for change in options.set:
        if not change.startswith("sample.") and change.partition("=")[0] not in places(config):
            raise ValueError(
                f"--set: expected a key of sample, such as sample.steps=50, got {change!r}; the rest is fixed"
            )
    changes = list(options.set)
    changes += [f"{key}={json.dumps(v)}" for key in ("engine", "dtype") if (v := getattr(options, key)) is not None]
    changes += [f"sample.{key}={v}" for key in GUIDANCE if (v := getattr(options, key, None)) is not None]
    return config.changed(changes)


def _print(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """The result: JSON, or one aligned line a value."""
    if options.json:
        print(json.dumps(result))
        return
    lines = {k: v for k, v in result.items() if v is not None}
    width = max(map(len, lines))
    for key, value in lines.items():
        text = (
            f"{value:.4f}"
            if isinstance(value, float)
            else json.dumps(value)
            if isinstance(value, dict | list)
            else value
        )
        print(f"{key:<{width}}  {text}")
