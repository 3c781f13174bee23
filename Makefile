# Targets to run, test, check and package llmd from a checkout. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

dev := packaging/dev
bin := .venv/bin
scripts = $(wildcard $(dev)/*.sh .ci/run)
# The model of the end-to-end tests; LLMD_TEST_MODEL=/path/to/a.gguf names another.
with_model = LLMD_TEST_MODEL="$${LLMD_TEST_MODEL:-$$($(dev)/model.sh --path)}"
# Tests run in a process per core. A process that has finished takes over tests of another one;
# until then each has neighbouring tests, which share a daemon.
parallel := --numprocesses auto --dist worksteal
# The Debian releases to build packages for: make deb DIST=bookworm
DIST ?= bookworm trixie
# The packages in .venv are for all purposes, or to run llmd only.
purpose := all
# More arguments for the program that a target runs: make unit ARGS="-k store -x"
ARGS ?=

.PHONY: help prereqs venv engine engine-all model setup run test unit e2e deb deb-test peer bench bench-variants bench-pages bench-share bench-exact cov check fmt lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

prereqs: ## check for Python, a compiler and make; install them where that is allowed
	@$(dev)/prereqs.sh

venv: prereqs ## create .venv with the packages of the lock files, and llmd itself
	@$(dev)/venv.sh $(purpose)

engine: venv ## build the llama.cpp libraries for this processor, once per machine (four minutes)
	@$(dev)/engine.sh

engine-all: venv ## build them for every x86-64 processor, as packaged (ten minutes)
	@$(dev)/engine.sh --all

model: venv ## download the small model for first steps and tests, once per machine (98 MB)
	@$(dev)/model.sh

setup: engine model ## everything that run and test need

run: purpose := run
run: setup ## start a daemon on 127.0.0.1:5000 (LLMD_PORT) with its data in var/ and ask a question
	@exec $(dev)/run.sh

test: setup ## run every test except those of the packages (deb-test)
	$(with_model) $(bin)/python -m pytest $(parallel) $(ARGS)

unit: venv ## run the tests that need no model (a minute)
	$(bin)/python -m pytest tests/unit $(parallel) $(ARGS)

e2e: setup ## run the tests of the real daemon with a real model
	$(with_model) $(bin)/python -m pytest -m e2e $(parallel) $(ARGS)

deb: engine-all model ## build packages for DIST (default: bookworm and trixie) in dist/, as root
	@$(dev)/prereqs.sh deb
	@for dist in $(DIST); do $(dev)/deb.sh "$$dist"; done

deb-test: deb ## test the packages in booted, offline Debian systems, as root
	LLMD_DEB_SUITES="$(DIST)" $(bin)/python -m pytest tests/deb $(ARGS)

peer: setup ## build llama.cpp's own server, to compare with, once per machine (some minutes)
	@$(dev)/peer.sh

bench: peer ## compare llmd with llama.cpp's servers, in turns (over an hour; ARGS=--help)
	$(bin)/python -m bench $(ARGS)

bench-variants: setup ## compare the packaged CPU code with a native build (ten minutes the first time)
	@native="$$($(dev)/engine.sh --native | tee /dev/stderr | tail -n 1)"; \
	  $(bin)/python -m bench.variants "$$($(dev)/model.sh --path)" "$$(readlink -f .venv/engine)" "$$native"

bench-pages: peer ## measure the effect of large memory pages (five minutes)
	$(bin)/python -m bench.pages "$$($(dev)/peer.sh --model)" "$$(readlink -f .venv/engine)"

bench-share: peer ## measure how much of a step is spent in Python (a minute)
	$(bin)/python bench/share.py "$$($(dev)/peer.sh --model)"

bench-exact: setup ## check that reused states and drafts do not change greedy answers (half an hour)
	$(bin)/python bench/exactness.py "$$($(dev)/model.sh --path)" $(ARGS)

cov: setup ## run every test and measure branch coverage, in daemon and worker too; at least 90 %
	$(bin)/coverage erase
	$(with_model) $(bin)/coverage run -m pytest $(parallel) $(ARGS)
	$(bin)/coverage combine --quiet
	$(bin)/coverage report --fail-under=90

check: venv ## check format, lint, types, import directions, configuration files and scripts
	$(bin)/ruff format --check
	$(bin)/ruff check
	$(bin)/mypy
	$(bin)/lint-imports --no-logo
	@for file in etc/*.toml; do echo "llmd --config $$file config check"; \
	  $(bin)/llmd --config "$$file" config check; done
	@if command -v shellcheck >/dev/null; then echo "shellcheck -x $(scripts)"; \
	  shellcheck -x $(scripts); else echo "shellcheck is not installed: scripts not checked"; fi

fmt: venv ## format the code and fix what ruff can fix
	$(bin)/ruff format
	$(bin)/ruff check --fix

lock: venv ## update the lock files from requirements/*.in (LOCK_ARGS=--upgrade: newest versions)
	@$(dev)/lock.sh $(LOCK_ARGS)

clean: ## remove everything built in this checkout; keep var/ (data) and the machine's cache
	rm -rf .venv build dist htmlcov .coverage .coverage.* .hypothesis *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find llmd migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +
