# Two commands: `make demo` sets up and shows a restored scan, `make test` sets up and runs the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint docs examples clean

.venv/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.test: pyproject.toml constraints.txt | .venv/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/.demo
	$(BIN)/cdm4mi demo --out demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The guide and the API reference, as a site in site/: a warning is an error.
docs: .venv/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Runs the examples (a minute each) and keeps their pictures for the guide.
examples: .venv/.test
	mkdir -p build/examples docs/examples
	cd build/examples && for name in ../../examples/*.py; do ../../$(BIN)/python $$name || exit 1; done
	cp build/examples/*/*.png docs/examples/

clean:
	rm -rf .venv build demo site
