"""Predictions on the cpu engine: half of the batch by a second process, where that pays."""
