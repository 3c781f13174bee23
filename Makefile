# llmd from a checkout. `make` alone tells what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

dev := packaging/dev
bin := .venv/bin
scripts = $(wildcard $(dev)/*.sh .ci/run)
# Where the end-to-end tests find a real model; LLMD_TEST_MODEL=/path/to/a.gguf names another.
with_model = LLMD_TEST_MODEL="$${LLMD_TEST_MODEL:-$$($(dev)/model.sh --path)}"
# The releases that packages are built for: make deb DIST=bookworm
DIST ?= bookworm trixie
# More words for pytest: make unit ARGS="-k store -x"
ARGS ?=

.PHONY: help prereqs venv engine engine-all model setup run test unit e2e deb deb-test peer bench bench-variants bench-pages bench-share bench-exact cov check fmt lock clean

help: ## tell what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

prereqs: ## see that Python, a compiler and make are there; install them where that is allowed
	@$(dev)/prereqs.sh

venv: prereqs ## .venv with all that the lock files name, and llmd itself
	@$(dev)/venv.sh

engine: venv ## the llama.cpp libraries for this processor, built once per machine (four minutes)
	@$(dev)/engine.sh

engine-all: venv ## the llama.cpp libraries for every x86-64 processor, as packaged (ten minutes)
	@$(dev)/engine.sh --all

model: venv ## the small model for trying and testing, fetched once a machine (98 MB)
	@$(dev)/model.sh

setup: engine model ## all of the above

run: setup ## start a daemon on 127.0.0.1:5000 (LLMD_PORT) with its data in var/, ask it something
	@exec $(dev)/run.sh

test: setup ## every test but those of the packages (deb-test)
	$(with_model) $(bin)/python -m pytest $(ARGS)

unit: venv ## the tests that need no model: seconds
	$(bin)/python -m pytest tests/unit --numprocesses auto $(ARGS)

e2e: setup ## the tests of the real daemon with a real model
	$(with_model) $(bin)/python -m pytest -m e2e $(ARGS)

deb: engine-all model ## Debian packages for DIST (bookworm, trixie; both when not given) into dist/, as root
	@$(dev)/prereqs.sh deb
	@for dist in $(DIST); do $(dev)/deb.sh "$$dist"; done

deb-test: deb ## boot Debian with these packages, offline: install, upgrade, kill, remove; as root
	LLMD_DEB_SUITES="$(DIST)" $(bin)/python -m pytest tests/deb $(ARGS)

peer: setup ## llama.cpp's own server, to measure against, built once a machine (some minutes)
	@$(dev)/peer.sh

bench: peer ## measure llmd against it in turns (more than an hour; ARGS="--scenario load", ARGS=--help)
	$(bin)/python -m bench $(ARGS)

bench-variants: setup ## compare the CPU code that is shipped with a build for this processor (ten minutes at first)
	@native="$$($(dev)/engine.sh --native | tee /dev/stderr | tail -n 1)"; \
	  $(bin)/python -m bench.variants "$$($(dev)/model.sh --path)" "$$(readlink -f .venv/engine)" "$$native"

bench-pages: peer ## what large pages of memory bring (five minutes)
	$(bin)/python -m bench.pages "$$($(dev)/peer.sh --model)" "$$(readlink -f .venv/engine)"

bench-share: peer ## how much of a step is Python's (a minute)
	$(bin)/python bench/share.py "$$($(dev)/peer.sh --model)"

bench-exact: setup ## whether reuse, restored states and guesses change greedy answers (half an hour)
	$(bin)/python bench/exactness.py "$$($(dev)/model.sh --path)" $(ARGS)

cov: setup ## every test with its branches counted, in the daemon and its worker too; 90 % or fail
	$(bin)/coverage erase
	$(with_model) $(bin)/coverage run -m pytest $(ARGS)
	$(bin)/coverage combine --quiet
	$(bin)/coverage report --fail-under=90

check: venv ## form, lint, types, directions of import, configuration files, scripts
	$(bin)/ruff format --check
	$(bin)/ruff check
	$(bin)/mypy
	$(bin)/lint-imports --no-logo
	@for file in etc/*.toml; do echo "llmd --config $$file config check"; \
	  $(bin)/llmd --config "$$file" config check; done
	@if command -v shellcheck >/dev/null; then echo "shellcheck -x $(scripts)"; \
	  shellcheck -x $(scripts); else echo "shellcheck is not installed: scripts not checked"; fi

fmt: venv ## put the code into form
	$(bin)/ruff format
	$(bin)/ruff check --fix

lock: venv ## bring the lock files up to date with requirements/*.in (LOCK_ARGS=--upgrade: newest of all)
	@$(dev)/lock.sh $(LOCK_ARGS)

clean: ## remove what was made here, save var/ (data) and what the machine keeps in its cache
	rm -rf .venv build dist htmlcov .coverage .coverage.* .hypothesis *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find llmd migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +
