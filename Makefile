# Needs python3 (3.10 or newer), pip and make. Everything lands in .venv.
PYTHON ?= python3
BIN := .venv/bin
# Another phantom: make demo PHANTOM=12. Your own image: make demo IMAGE=path/to/image.png
PHANTOM ?= 4
OUTPUT ?= demo_output

.PHONY: demo test check fix docs bench clean

demo: .venv/.demo
	$(BIN)/pylon-zoo predict $(if $(IMAGE),"$(IMAGE)",--phantom $(PHANTOM)) --output "$(OUTPUT)"

test: .venv/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(TESTS)

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages that are made, then the site in site/; stops at the first broken link or reference.
docs: .venv/.dev
	$(BIN)/python benchmarks/checkpoints.py cards
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Rows that benchmarks/results/ lacks; all of them anew: make bench BENCH=--again
bench: .venv/.dev
	$(BIN)/python benchmarks/speed.py all $(BENCH)
	$(BIN)/python docs/cost.py

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pylon_zoo needs Python 3.10 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[viz]'
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/.demo

clean:
	rm -rf .venv build dist site demo_output
