"""Presets of models that come before diffusion or beside it, each with a bound of its own likelihood."""

from __future__ import annotations

__all__: list[str] = []
