# `make smoke` and `make test` need nothing but Python 3.11 or newer (another one: `make test PYTHON=python3.12`).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: smoke test test-slow test-kills test-cluster results lint

smoke: $(VENV)/installed  ## install, then train, evaluate and report on generated phantoms
	$(BIN)/python -m medp_clip_jax.train --config=configs/smoke.py

test: lint  ## install, lint, type-check and run the fast tests
	$(BIN)/pytest -n 2 --dist loadgroup

test-slow: $(VENV)/installed
	$(BIN)/pytest -m slow

test-kills: $(VENV)/installed  ## twenty random kills of a two-process training lose nothing but unsaved steps
	$(BIN)/pytest -m kills -s

test-cluster: $(VENV)/installed  ## a real SLURM cluster on this machine preempts a training; needs slurm-wlm and munge
	$(BIN)/python tests/cluster/run_slurm.py

results: $(VENV)/installed  ## make docs/results.md from docs/evidence/ anew; fails where it is not what is committed
	$(BIN)/python -m medp_clip_jax.sweep --page=docs/results.template.md
	git diff --exit-code docs/results.md

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,dev]"
	touch $@
