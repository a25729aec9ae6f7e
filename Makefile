# Arguments pass through: make demo ARGS=--quick, make test ARGS='-k masking'
PYTHON ?= python3
ARGS ?=

.PHONY: setup demo test gpu lint

setup:
	@$(PYTHON) tools/bootstrap.py

demo: setup
	@.venv/bin/spark-bench demo $(ARGS)

test: setup
	@.venv/bin/python -m pytest $(ARGS)

# On a machine with a GPU: its tests, and what they measure (also in work_dirs/gpu.json).
gpu: setup
	@.venv/bin/python -m pytest -m gpu -n 0 $(ARGS)

lint: setup
	@.venv/bin/ruff check $(ARGS)
	@.venv/bin/ruff format --check $(ARGS)
	@.venv/bin/mypy
