"""How much of the data x_T still shows: with too little, x_0 cannot be had from eps; with too much, x_T is no noise."""

from __future__ import annotations

import numpy as np

from ..errors import setting
from .schedule import ScheduleConfig

__all__ = ["lost_in_noise", "signal_left_at_end"]


def signal_left_at_end(schedule: ScheduleConfig) -> float:
    """sqrt(alpha_bar_T)."""
    return float(np.sqrt(schedule.build().alpha_bar[-1]))


def lost_in_noise(schedule: ScheduleConfig, prediction: str) -> str:
    """Why x_0 = (x_T - s eps) / a cannot come out at T, if a = sqrt(alpha_bar_T) is below a last digit of float32; or ""."""
    left, digit = signal_left_at_end(schedule), float(np.finfo(np.float32).eps)
    if prediction != "eps" or left >= digit:
        return ""
    return (
        f"expected a schedule that leaves more of the data than float32 resolves ({digit:.1e}) for eps to tell, got "
        f"sqrt(alpha_bar_T) = {left:.1e}; take {setting('objective.prediction', 'v')}"
    )
