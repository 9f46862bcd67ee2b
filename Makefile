# What a newcomer types. Everything is installed into .venv first, from the pins in requirements.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: install demo test torture lint bench clean

install: .venv/installed

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c requirements-dev.txt pip
	$(BIN)/pip install -r requirements.txt
	$(BIN)/pip install --no-deps -e .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-server.txt
	$(BIN)/pip install -r requirements-dev.txt -r requirements-server.txt
	touch $@

# Another runtime to compare with; where npm or its registry is out of reach its tests are skipped, in CI they fail
NODE := tests/export/node
$(NODE)/node_modules/.package-lock.json: $(NODE)/package-lock.json
	npm ci --ignore-scripts --prefix $(NODE) || echo "no packages from npm: the tests with Node are skipped"

demo: install  ## the main job on synthetic slices
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . --env-manager local -P data=sample -P preset=demo -P num_pairs=500

test: .venv/installed-dev $(NODE)/node_modules/.package-lock.json  ## a process a core, each with one thread: together they wait less for each other
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

torture: .venv/installed-dev  ## what test tries a little of, at full size: hours
	OMP_NUM_THREADS=1 SSLBT_TORTURE=1 $(BIN)/python -m pytest tests/torture -n auto --dist loadfile --timeout 7200

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/installed-bench: .venv/installed requirements-bench.txt
	$(BIN)/pip install --no-deps -r requirements-bench.txt
	touch $@

bench: .venv/installed-bench  ## how fast, beside the limits of this machine and beside others
	$(BIN)/python benchmarks/prepare.py $(DATA)
	$(BIN)/python benchmarks/training.py $(DATA)

clean:
	rm -rf .venv build *.egg-info
