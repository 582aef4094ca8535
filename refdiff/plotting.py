"""Figures without a display. matplotlib is asked for here alone, and only when something is drawn."""

from __future__ import annotations

from typing import Any

from .errors import extra

__all__ = ["new_figure"]


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib Figure of so many inches, to be saved with `savefig`.   ImportError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ImportError(f"plots need matplotlib, which is not installed: {extra('plot')}") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
