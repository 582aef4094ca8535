"""Tables are made anew for each test: one that another test made would hide what made it."""

import pytest

from refdiff.objectives import noise_table, step_table, variational_table


@pytest.fixture(autouse=True)
def fresh_tables():
    noise_table.cache_clear()
    variational_table.cache_clear()
    step_table.cache_clear()
