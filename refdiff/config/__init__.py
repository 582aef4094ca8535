"""The configuration of a run: frozen dataclasses, TOML files, and single keys changed."""

from .config import *
