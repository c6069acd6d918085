# Each target first sets up what it needs; the second time that takes a blink.
PYTHON ?= python3
EVERBILL := .venv/bin/everbill

.PHONY: demo test up bench soak check setup development

demo: setup
	@$(EVERBILL) demo

up: setup
	@$(EVERBILL) up

test: development
	@.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not soak"

bench: development
	@.venv/bin/python -m benchmarks

soak: development
	@.venv/bin/python -m pytest -m soak

check: development
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy .
	@.venv/bin/lint-imports

setup:
	@$(PYTHON) embedded/virtualenv.py requirements.lock

development:
	@$(PYTHON) embedded/virtualenv.py requirements-dev.lock
