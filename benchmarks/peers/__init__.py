"""The peers, each a program that speaks `refdiff.benchmark.protocol`."""
