# make demo   install what the demo needs, then run configs/quickstart: SFT, reward model, PPO, evaluation
# make test   install what the tests need, then run the quick tests
# make test-slow  run the tests that start processes, compile, drive a browser, or read the real model
# make test-lowest  the quick tests with the lowest versions that pyproject.toml allows, in .venv-lowest
# make fuzz   ten minutes of other values than the tests try, in files, configurations and requests
# make trials  kill, stop, damage and starve runs, and compare what they end in byte for byte: a few of each kind
# make test-faults  the same by the hundred, and whatever else is tested about faults
# make reliability  run the tests of docs/reliability.md, and write that page from what came of them
# make check  formatting, lint, types and import rules, and known weaknesses of the pinned packages
# make guard  stop when sampling or the PPO update has become far slower than their plain counterparts
# make package  build the wheel and the sdist into dist/, and check that a package index would take them
# make docs   build the documentation as a site into site/, and stop on a broken link
# make clean  remove the environment and the caches (never runs/)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := configs/quickstart/run.yaml
INPUTS := pyproject.toml constraints.txt
LOWEST := .venv-lowest

# Two test workers on two cores: with more threads each they would take the cores from one another. Each begins with one
# half of the tests, so that what the tests of a file share is made once.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
PYTEST = $(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist worksteal

# Random kills of each kind of run, and every how many operations on a file there is one. A few take about 4 minutes on
# 2 cores, `make test-faults` about 12; a whole trial is `make test-faults TRIALS=30 STRIDE=1`.
TRIALS := 6
STRIDE := 4
trials: TRIALS := 1
trials: STRIDE := 16

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-lowest trials test-faults reliability fuzz check guard package docs clean

help:
	@sed -n 's/^# make/make/p' Makefile

demo: $(VENV)/.installed-demo
	$(BIN)/rlhf run --config $(DEMO)

test: $(VENV)/.installed-test
	$(PYTEST)

test-slow: $(VENV)/.installed-test
	$(PYTEST) -m slow

test-lowest: $(LOWEST)/.installed
	$(TEST_ENV) $(LOWEST)/bin/python -m pytest -n 2

fuzz: $(VENV)/.installed-test
	RLHF_FUZZ=long $(PYTEST) --timeout 1800 tests/fuzz

trials: $(VENV)/.installed-test
	$(PYTEST) -m trial --trials $(TRIALS) --stride $(STRIDE) tests/faults

test-faults: $(VENV)/.installed-test
	$(PYTEST) -m "" --trials $(TRIALS) --stride $(STRIDE) tests/faults

reliability: $(VENV)/.installed-test
	$(TEST_ENV) $(BIN)/python tests/faults/promises/reliability.py --trials $(TRIALS) --stride $(STRIDE)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/security/audit.py

guard: $(VENV)/.installed-test
	$(BIN)/python benchmarks/guard.py

package: $(VENV)/.installed-package
	rm -rf build dist
	$(BIN)/python -m build --quiet --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f website/mkdocs.yml

clean:
	rm -rf $(VENV) $(LOWEST) *.egg-info build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments without the right Python say so before anything is downloaded.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rlhf needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# -qq leaves pip its errors and takes its warnings, which are about this machine's package index and help no user.
# A stamp newer than its inputs means that nothing is to be installed.
$(VENV)/.installed-demo: EXTRAS := demo,tracking
$(VENV)/.installed-package: EXTRAS := package
$(VENV)/.installed-docs: EXTRAS := docs
$(VENV)/.installed-test: EXTRAS := demo,lab,lexicon,tracking,test
$(VENV)/.installed-dev: EXTRAS := demo,lab,lexicon,tracking,test,dev
$(VENV)/.installed-%: $(INPUTS) | $(BIN)/python
	@echo "installing rlhf-ppo[$(EXTRAS)] into $(VENV) (the first time downloads torch and transformers) ..."
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

# The packages of constraints-lowest.txt in its versions, all others in those of constraints.txt.
$(LOWEST)/.installed: $(INPUTS) constraints-lowest.txt | $(BIN)/python
	@echo "installing the lowest versions into $(LOWEST) ..."
	$(BIN)/python -m venv $(LOWEST)
	grep -vE "^($$(sed -nE 's/^([a-z_]+)[=<].*/\1/p' constraints-lowest.txt | paste -sd '|' -))==" constraints.txt \
		| cat constraints-lowest.txt - > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check -c $(LOWEST)/constraints.txt \
		-e '.[demo,lab,lexicon,tracking,test]'
	@touch $@
