# What people run. `make` lists it.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export MARKETING_STORE ?= data/sample_shop/store.yaml
export MARKETING_DAGSTER_STORAGE ?= $(abspath $(dir $(MARKETING_STORE)))/dagster
export DAGSTER_HOME ?= $(MARKETING_DAGSTER_STORAGE)
export PYTHONWARNINGS ?= ignore
JOBS ?= 2

.PHONY: help
help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: env
env: $(VENV)/.ready ## the environment alone (in .venv, from requirements.lock)

.PHONY: demo
demo: env ## sample shop, whole graph over its history, report
	$(BIN)/marketing sample-shop
	@$(MAKE) --no-print-directory history
	@$(BIN)/marketing report

.PHONY: history
history: env ## whole graph over all days so far of the shop MARKETING_STORE names
	@mkdir -p $(DAGSTER_HOME) && ln -sf $(CURDIR)/dagster.yaml $(DAGSTER_HOME)/dagster.yaml
	days=$$($(BIN)/marketing days) && \
	  $(BIN)/dagster asset materialize -m marketing_assets.definitions --select '*' --partition-range $$days

.PHONY: test
test: env ## all tests
	$(BIN)/python -m pytest -n $(JOBS)

.PHONY: lint
lint: env ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: ui
ui: env ## the Dagster UI on 127.0.0.1:3000, daemon included
	@mkdir -p $(DAGSTER_HOME) && ln -sf $(CURDIR)/dagster.yaml $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/dagster dev --host 127.0.0.1 --port 3000 --workspace workspace.yaml

.PHONY: bench
bench: env ## the benchmarks, peers beside us (installs the peers)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-bench.lock
	$(BIN)/python benchmarks/run_all.py

.PHONY: clean
clean: ## what runs of the sample shop left behind
	rm -rf data/sample_shop/landing data/sample_shop/truth data/sample_shop/state data/sample_shop/warehouse.duckdb* \
	  data/sample_shop/ledger.parquet data/sample_shop/verdict.json data/sample_shop/dagster data/sample_shop/reports \
	  data/sample_shop/exports data/sample_shop/control
