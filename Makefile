# make help lists what there is. Nothing outside this folder is touched.
PYTHON ?= python3
PIP_ARGS ?=# options for pip install, such as --index-url for another build of torch
PYTEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
OUT := demo-out
STORES := .engines/stores
# Of the tests of Spark, each of which takes minutes, those that make test-slow runs; pytest -m spark runs all.
SPARK_TESTS := executor or (writes_the_same_bytes and not what_runs)
JARS := $(or $(CPTSEL_SHARED),../shared)/jars/make_job_server.py
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "cptsel needs Python 3.11 or newer; name one: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV): some minutes the first time"
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV), with the development tools: some minutes the first time"
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed  ## embed, select, order, verify and export the sample data; results in demo-out/
	$(BIN)/cptsel embed 'sample_data/old/*/*.jsonl.gz' --model sample_data/tiny-lm \
		--lookahead 'sample_data/new/*/*.jsonl.gz' --group-by source --max-tokens 256 --pool 20% \
		--workers 2 --overwrite --out $(OUT)/run
	$(BIN)/cptsel select $(OUT)/run --group-by source --budget 5% --overwrite --out $(OUT)/replay
	$(BIN)/cptsel order $(OUT)/replay --epochs 2 --world-size 2 --overwrite --out $(OUT)/ordered
	$(BIN)/cptsel verify $(OUT)/ordered --sources
	$(BIN)/cptsel inspect $(OUT)/ordered
	$(BIN)/cptsel export $(OUT)/ordered --to parquet --ids --overwrite --out $(OUT)/export
	$(BIN)/cptsel verify $(OUT)/export --replay $(OUT)/ordered
	@echo; echo "The replay manifest is in $(OUT)/ordered; CONSUMING.md there tells a trainer how to read it,"
	@echo "and TRAINING.md in $(OUT)/export how to train on the texts themselves."

lint: $(VENV)/.installed-dev  ## style, types and the order of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint, then every test that is quick
	$(BIN)/pytest -n auto --dist loadfile $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev  ## the tests that take minutes or need Spark, object stores or trainers' libraries
	$(BIN)/python tests/environments.py
	@if command -v java >/dev/null && [ -e "$(JARS)" ]; then \
		$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[spark]'; \
	else echo "tests of Spark will be skipped: no java, or no $(JARS)"; fi
	$(BIN)/pytest -m slow -n auto $(PYTEST_ARGS)
	$(BIN)/pytest -m trainers $(PYTEST_ARGS)
	$(BIN)/pytest -m spark -k '$(SPARK_TESTS)' $(PYTEST_ARGS)
	@if [ -e $(STORES)/installed.txt ]; then $(STORES)/bin/python -m pytest -m stores $(PYTEST_ARGS); \
	else echo "tests of object stores are skipped: their packages could not be installed"; fi

docs: $(VENV)/.installed-dev  ## write docs/cli.md, docs/trainers.md and the tables of docs/methods.md and README.md anew
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_methods.py
	$(BIN)/python docs/generate_trainers.py

clean:  ## remove what make made, the virtual environment too
	rm -rf $(VENV) .engines .trainers $(OUT) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
