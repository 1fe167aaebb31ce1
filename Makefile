# Every target sets itself up: a virtual environment in $(VENV), exact versions from constraints.txt.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

PY = $(VENV)/bin/python
TEST = OMP_NUM_THREADS=1 $(PY) -m pytest

.PHONY: help test fuzz demo bench zoo lint
help:
	@echo "make test    the tests           make demo   train a classifier with a compiled cell"
	@echo "make bench   measure with peers  make fuzz   the long fuzzing runs"
	@echo "make zoo     rewrite docs/zoo.md make lint   ruff"

test: $(VENV)/.installed
	$(TEST) -n $(JOBS) --dist worksteal -m "not slow"

fuzz: $(VENV)/.installed
	$(TEST) -n $(JOBS) --dist worksteal -m slow

demo: $(VENV)/.installed
	$(PY) examples/demo.py

bench: $(VENV)/.installed-bench
	$(PY) -m benchmarks $(ARGS)

zoo: $(VENV)/.installed
	$(PY) examples/zoo_table.py docs/zoo.md

lint: $(VENV)/.installed
	$(PY) -m ruff check .

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	# an oracle of tests/zoo; the part of it that is used needs nothing but torch
	$(PY) -m pip install --quiet --no-deps --constraint constraints.txt xlstm
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	touch $@
