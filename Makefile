# make demo    train on handwritten digits, sample, evaluate: pictures and numbers in runs/demo/
# make test    the tests, within ten minutes on two cores
# make peers   the tests beside PyTorch, JAX, diffusers and scikit-learn: a minute to install, another to run
# make check   ruff, mypy, the slow tests, and every property once more on random cases
# make bench   measures the cpu engine beside PyTorch: 25 minutes on a quiet machine, benchmarks/results/cpu.*
# make gpu     checks and measures the CUDA engine on this machine's GPU: 25 minutes, benchmarks/results/gpu.*
# make gallery NAME=digits   trains and measures an entry of docs/gallery anew, as benchmarks/gallery/entries.py says
# make mutants breaks the mathematics, the objectives and the reference engine in every small way: the tests must notice
#              (half an hour)
#
# Each target does its own set-up in .venv, again only when pyproject.toml or setup.py has changed.

PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
CUDA ?= 13
NAME ?= digits

# The matrix library takes one thread: its products here are small, a second thread gains a tenth on a quiet machine and
# loses a factor of four on a busy one. The tests use the other cores, one process each.
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1
PYTEST := $(BIN)/python -m pytest -n $(JOBS)

.PHONY: demo test peers check bench gpu gallery mutants clean
.DELETE_ON_ERROR:

demo: .venv/ready-plot
	$(BIN)/refdiff demo --out runs/demo --force

test: .venv/ready-test
	$(PYTEST)

# In one process: the libraries come with threads of their own, and take seconds to load.
peers: .venv/ready-peers
	$(BIN)/python -m pytest tests/peers

check: .venv/ready-check .venv/ready-peers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "slow or not slow"
	$(PYTEST) --hypothesis-profile=random
	$(BIN)/python -m pytest tests/peers -m "slow or not slow"

bench: .venv/ready-bench
	$(BIN)/python -m benchmarks.cpu --out benchmarks/results/cpu.json

# A machine with a GPU often comes with CuPy and PyTorch in its own Python, and no network: that Python is taken as it is.
gpu:
	@if $(PYTHON) -c 'import sys, cupy; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  $(PYTHON) -m benchmarks.gpu --out benchmarks/results/gpu.json; \
	else \
	  $(MAKE) .venv/ready-cuda$(CUDA),test && $(BIN)/python -m benchmarks.gpu --out benchmarks/results/gpu.json; \
	fi

gallery: .venv/ready-plot
	$(BIN)/python -m benchmarks.gallery $(NAME)

mutants: .venv/ready-mutants
	$(BIN)/mutmut run --max-children $(JOBS)
	$(BIN)/python tests/mutants.py docs/mutants.md

.venv/ready-%: pyproject.toml setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "refdiff needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Point to a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "$(PYTHON) cannot make virtual environments: install the package python$$v-venv" \
	       "(Debian, Ubuntu: apt-get install python$$v-venv) and run make again." >&2; exit 2; }
	@$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
