"""Hypothesis profiles: `repeat` draws the same cases every time (the default), `random` new ones (`make check`), and
`mutants` few, since each mutant of the code runs them (`make mutants`)."""

from hypothesis import HealthCheck, settings

common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("repeat", derandomize=True, max_examples=30, **common)
settings.register_profile("mutants", derandomize=True, max_examples=10, database=None, **common)
settings.register_profile("random", derandomize=False, max_examples=60, **common)
