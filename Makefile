# `make demo` and `make test` set everything up on a fresh machine with Python 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check sweep bench docs docs-figures clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: .venv/ready
	$(BIN)/whence demo

test: .venv/ready
	$(BIN)/pytest -n 2 --dist loadfile

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Long runs over all torchvision, timm and transformers classifiers.
sweep: .venv/ready
	$(BIN)/pytest -m sweep -s tests/sweep

bench: .venv/ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/run.py

# The facts on the methods' pages, their index, and the README's table.
docs: .venv/ready
	$(BIN)/python docs/make_pages.py

# The figures of the docs; those with photos go into a folder that is not committed.
docs-figures: .venv/ready
	$(BIN)/python docs/make_figures.py

clean:
	rm -rf .venv whence-demo whence-report
