"""Samples from a trained model: its predictions, the samplers of `process`, and noise that a sample's number decides."""

from .run import *
