"""The suites that measure refdiff beside its peers: `python -m benchmarks.cpu` and `python -m benchmarks.gpu`."""
