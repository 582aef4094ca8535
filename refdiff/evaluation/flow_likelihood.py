"""Bits per dimension by the probability-flow ODE [SDE] section 4.3: no bound, but what the flow of the model itself gives,
up to the error of its steps, of which it warns.

The flow has a density. Data of levels a distance h apart are spread out evenly, x + h (u - 1/2), and -log2 of that density
less log2 h a dimension is in the mean no less than their -log2 p, by Jensen's inequality.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import log, log2, prod
from typing import Any, Literal

import numpy as np

from ..errors import DoubtWarning
from ..models import Batch
from ..process import SPACINGS, Schedule, flow_log_likelihood, predictor
from ..process.samplers import Predict
from ..progress import pieces
from ..random import Key, bits, uniform
from ..sampling import Trained, check_conditions, conditions_of, denoiser, encoder_function, network_function
from .likelihood import levels
from .uncertainty import standard_error

__all__ = ["estimate_flow", "flow_nll"]

FEW = 4  # elements of a sample, up to which the divergence is exact unless probes are asked for


def flow_nll(
    trained: Trained,
    x: np.ndarray,
    seed: int = 0,
    steps: int | None = None,
    probes: int | None = None,
    bins: int | Literal["data"] | None = "data",
    batch: int = 128,
    progress: bool = True,
    conditions: Batch | None = None,
) -> dict[str, Any]:
    """-log2 p(x) of a trained model by its flow, the mean over the data x, usually `held_out`, given their conditions.

    steps: how many of T, those that `sample.spacing` chooses; None: `sample.steps`. probes: of the divergence's estimate, 0
    for the exact one; None: exact for samples of at most 4 elements, else one. bins, conditions: as of `nll`. x0_hat is
    never held within a range: what is cut off has no flow.
    -> the dictionary of `estimate_flow`, with "flow_steps". ValueError as of `nll`; a DoubtWarning where steps err.
    """
    objective, network = trained.objective, trained.networks["denoiser"]
    if x.ndim < 2 or not len(x) or x.shape[1:] != trained.shape:
        raise ValueError(f"x: expected samples (N, {', '.join(map(str, trained.shape))}), got shape {x.shape}")
    schedule = objective.schedule.build()
    count = min(trained.settings.steps, schedule.T) if steps is None else steps
    timesteps = SPACINGS[trained.settings.spacing](schedule, count).tolist()
    told = conditions_of(trained._replace(classifier=None), {"x": x}) | (conditions or {})
    whole = check_conditions(trained.networks, objective, told, len(x))
    ask, encode = network_function(trained.engine, network, trained.dtype), encoder_function(trained)

    def predict_of(chosen: slice) -> Predict:
        model = denoiser(ask, encode({name: a[chosen] for name, a in whole.items()}), objective.learned)
        return predictor(schedule, model, objective.prediction)

    probes = (0 if prod(trained.shape) <= FEW else 1) if probes is None else probes
    bins = levels(x) if bins == "data" else bins
    found = estimate_flow(schedule, predict_of, x, timesteps, seed, probes, bins, batch, progress)
    return {**found, "flow_steps": len(timesteps)}


def estimate_flow(
    schedule: Schedule,
    predict_of: Callable[[slice], Predict],
    x: np.ndarray,
    timesteps: Sequence[int],
    seed: int = 0,
    probes: int = 0,
    bins: int | None = None,
    batch: int = 128,
    progress: bool = False,
) -> dict[str, Any]:
    """As `flow_nll`, for any predict, in x's precision: predict_of(which of x) -> predict(x_t, t).

    -> flow_bits_per_dim, and flow_bits_per_dim_error, the standard error of that mean over samples; flow_probes,
    flow_samples, dims, bins. A DoubtWarning says where the steps err by more than 0.01 nats a dimension.
    """
    if probes < 0 or batch < 1 or not len(timesteps):
        raise ValueError(
            f"probes, batch: expected at least 0 probes and batches of at least 1, got {probes} and {batch}"
        )
    key, one, doubts = Key(seed).under("flow"), x.shape[1:], []
    width = 0.0 if bins is None else 2 / (bins - 1)
    found = np.empty(len(x))
    for ids in pieces(len(x), batch, "flow", progress):
        chosen = slice(ids[0], ids[-1] + 1)
        spread = x[chosen] + (width * (uniform(key("place"), ids, one) - 0.5)).astype(x.dtype)
        signs = [_signs(key.under(str(k)), ids, one, x.dtype) for k in range(probes)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            log_p = flow_log_likelihood(
                schedule, predict_of(chosen), spread, timesteps, np.stack(signs) if signs else None
            )
        doubts += [f"of samples {ids[0]} to {ids[-1]}: {w.message}" for w in caught]
        found[chosen] = -log_p
    if doubts:
        more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
        warnings.warn(doubts[0] + more, DoubtWarning, stacklevel=2)
    dims = prod(one)
    each = found / (dims * log(2)) - (log2(width) if bins else 0.0)
    return {
        "flow_bits_per_dim": float(each.mean()),
        "flow_bits_per_dim_error": standard_error(each),
        "flow_probes": probes,
        "flow_samples": len(x),
        "dims": dims,
        "bins": bins,
    }


def _signs(key: Key, ids: np.ndarray, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """-1 and 1, as likely each.   -> (N, *shape)"""
    words = bits(key("signs"), ids, prod(shape))
    return np.where(words & np.uint32(1), 1, -1).astype(dtype).reshape(len(ids), *shape)
