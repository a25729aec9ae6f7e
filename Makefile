# Arguments pass through: make demo ARGS=--quick, make test ARGS='-k masking'
PYTHON ?= python3
ARGS ?=

.PHONY: setup demo test lint

setup:
	@$(PYTHON) tools/bootstrap.py

demo: setup
	@.venv/bin/spark-bench demo $(ARGS)

test: setup
	@.venv/bin/python -m pytest $(ARGS)

lint: setup
	@.venv/bin/ruff check $(ARGS)
