# One command for each job; `make` alone lists them. Everything runs in .venv, which is made when needed.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak fix venv \
        check-style check-types check-layers check-leaves check-upper \
        test-rounds test-units test-devices test-talks test-counts

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
CODE := server edge_client models privacy simulations tests

# The first Python that is new enough and brings venv.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 \
	&& $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$p && break; done)

# Small arrays run slower on many threads, and two jobs share the cores. Nothing here phones home.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes, and each would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

PARALLEL := $(MAKE) --no-print-directory -k --output-sync=target
PYTEST := $(BIN)/python -m pytest --no-header
QUICK := $(PYTEST) --hypothesis-profile=quick -m 'not soak and not slow'
LEAVES := tests/unit/models tests/unit/privacy tests/unit/simulations
integration = $(wildcard $(addsuffix .py,$(addprefix tests/integration/test_,$(1))))
TALKING := $(filter-out %_power_cut.py,$(call integration,hub* link* agent* requests))
# Loops of many thousand draws or examples, which tracing slows several times; processes that are
# killed, which leave no coverage; packages and docs, whose commands have tests of their own.
COUNTING := $(call integration,privacy_audit privacy_audit_command) \
	$(call integration,*_power_cut *_crashes mutated_bundles)
PACKAGED := tests/packaging $(call integration,*_guide)
ROUNDS := $(call integration,rounds *_in_rounds demo* killed* fault* adaptive* quality* \
	counts_made* count_* wire_tap restored*)
# What an operator does with runs and their privacy homes.
RUNS := $(filter-out $(PACKAGED),$(call integration,rounds_* privacy_home* privacy_plan \
	home_repairs run_folder* report_* told*))
COVERED := $(BIN)/coverage run -m pytest --no-header

help: ## List these targets
	@grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) \
	| awk -F ':.*## ' '{ printf "make %-7s %s\n", $$1, $$2 }'

demo: $(STAMP) ## Simulated fleet, private rounds, devices, notices over MQTT; writes runs/demo
	@$(BIN)/fedcell demo

test: $(STAMP) ## The whole suite with coverage (at least 85 %), about 8 minutes
	@rm -rf build/coverage && mkdir -p build/coverage
	@echo "Parts of the suite run side by side; what they print comes at the end of each"
	@$(PARALLEL) -j3 test-devices test-units test-counts test-talks test-rounds
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

check: $(STAMP) ## Style, types, import layers and unit tests, in a minute
	@$(PARALLEL) -j2 check-leaves check-upper check-types check-style check-layers

bench: $(STAMP) ## Benchmarks; figures in build/bench
	@$(PYTEST) tests/benchmarks -m '' -s

soak: $(STAMP) ## The long fault and audit counts, resumable
	@$(PYTEST) -m soak tests

fix: $(STAMP) ## Format, and repair what ruff can repair
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

check-style: $(STAMP)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

check-types: $(STAMP)
	@$(BIN)/mypy --strict

check-layers: $(STAMP)
	@$(BIN)/lint-imports --no-logo

# The unit tests in two halves of equal length, one for each core.
check-leaves: $(STAMP)
	@$(QUICK) $(LEAVES)

check-upper: $(STAMP)
	@$(QUICK) $(filter-out $(LEAVES),$(wildcard tests/unit/*)) tests/property

# The longest first. Much of a test of processes is waiting, so a third part finds time on two cores.
# Rounds train thousands of devices, which tracing slows several times; what decides them has unit
# tests, which are measured.
test-rounds: $(STAMP)
	@$(PYTEST) $(ROUNDS)

test-devices: $(STAMP)
	@$(COVERED) $(filter-out $(TALKING) $(COUNTING) $(PACKAGED) $(ROUNDS) $(RUNS), \
		$(call integration,*))

test-units: $(STAMP)
	@$(COVERED) tests/unit tests/golden

test-talks: $(STAMP)
	@$(COVERED) $(TALKING) $(RUNS)

test-counts: $(STAMP)
	@$(PYTEST) $(COUNTING) tests/property $(PACKAGED)

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "fedcell needs Python 3.11 or newer with venv; Debian: apt-get install python3 python3-venv" >&2; exit 4; }
	@command -v git >/dev/null || { echo "fedcell needs git; Debian: apt-get install git" >&2; exit 4; }
	@test -x $(BIN)/python || { echo "Making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing fedcell and its libraries into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[all,dev]' \
	|| { echo "The install failed; is the package index reachable? CPU wheels of torch: set PIP_EXTRA_INDEX_URL (README)" >&2; exit 6; }
	@touch $@
