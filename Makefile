# make setup|demo|research-team|test|test-dspy|coverage|isolation|chaos|test-sam|verify-aws|stress|serve|bench|bench-tracing|check|lint|format|template|docs|reference|package|lock. Needs Python 3.11+ and make, nothing else.
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
HERE := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
BIN := .venv/bin
TOOLS := .venv-tools/bin
PROJECT ?= examples/quickstart
# Tests with queue timeouts that fail on a busy machine, those that take half a minute each (an installed release, changed
# releases of DSPy, mutated events), and the one that kills processes for minutes.
ALONE := tests/infra/local/test_fifo.py tests/infra/local/test_moto_patches.py tests/infra/local/test_outage.py \
	tests/infra/verify/test_local.py tests/test_install.py tests/handler/dspy_patches/test_changed_dspy.py \
	tests/stress/test_mutated_events.py
CHAOS := tests/stress/test_chaos.py
# Tests that build artifacts, start processes or wait for their time limits: a third of the time of all others.
SLOW := tests/stress/test_stress.py tests/handler/telemetry/test_hooks.py tests/handler/telemetry/test_exceptions.py \
	tests/infra/artifact/test_build.py tests/infra/artifact/test_distributions.py tests/infra/artifact/test_quickstart.py \
	tests/infra/local/test_cgroups.py tests/infra/local/test_command.py tests/infra/local/test_kill.py \
	tests/infra/local/test_extensions.py tests/infra/local/test_mapping.py tests/infra/local/test_spans.py \
	tests/infra/test_collisions.py tests/infra/test_reload.py tests/infra/test_serve.py tests/infra/test_stack_size.py
PYTEST := pytest -q -n 4 --dist loadfile --no-loadscope-reorder $(foreach file,$(ALONE) $(CHAOS),--ignore $(file))
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

.PHONY: setup tools demo research-team test test-dspy coverage isolation chaos test-sam verify-aws stress serve bench bench-tracing check lint format template docs reference package lock clean

setup: .venv/ready
tools: .venv-tools/ready

.venv/ready: requirements/dev.txt requirements/uv.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer on PATH; install one, or use make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: this Python has no venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv (about a minute, once) ..."
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
	@echo "Installed. To put dspy-lambda on your PATH: . .venv/bin/activate"

.venv-tools/ready: requirements/tools.txt .venv/ready
	@rm -rf .venv-tools
	$(PYTHON) -m venv .venv-tools
	$(BIN)/uv pip install -q --python $(TOOLS)/python --require-hashes -r requirements/tools.txt
	@touch $@

demo: setup
	@$(BIN)/python examples/demo.py

research-team: setup
	@$(BIN)/python examples/research_team.py

# Under another Python: make clean, then make test PYTHON=/path/to/python3.14.
test: setup
	$(BIN)/python -m $(PYTEST) $(foreach file,$(SLOW),--ignore $(file))

# Branch coverage; fails below the thresholds below. On Python 3.11 it takes 1.7 times the CPU, so tests
# that only repeat under load, or build a complete artifact, are left out.
# Ignores failed tests: `make test` reports those, without that load.
UNCOUNTED := tests/stress tests/examples tests/benchmarks tests/infra/artifact/test_quickstart.py
coverage: setup
	@rm -rf .coverage
	$(BIN)/python -m coverage run -m $(PYTEST) $(foreach path,$(UNCOUNTED),--ignore $(path)) || test $$? -eq 1
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report --include 'infra/*' --fail-under 93
	@$(BIN)/python -m coverage report --include 'handler/*' --fail-under 94

# The handler's tests against any DSPy, with and without the patches that only save time:
# make test-dspy (the newest release), VERSION=3.4.0, or PACKAGE=dspy-lite for another distribution of `dspy`.
PACKAGE ?= dspy
VERSION ?=
OTHER := .venv-$(PACKAGE)-$(or $(VERSION),newest)
test-dspy: setup
	@rm -rf $(OTHER)
	@$(PYTHON) -m venv $(OTHER)
	@$(BIN)/uv pip install -q --python $(OTHER)/bin/python --compile-bytecode -r requirements/dev.txt
	@$(BIN)/uv pip uninstall -q --python $(OTHER)/bin/python dspy
	@$(BIN)/uv pip install -q --python $(OTHER)/bin/python --upgrade --compile-bytecode "$(PACKAGE)$(VERSION:%===%)"
	@$(BIN)/uv pip install -q --python $(OTHER)/bin/python --no-deps --no-build-isolation -e .
	@$(OTHER)/bin/python -c "import dspy_lambda.environment, dspy; print('DSPy', dspy.__version__)"
	TEST_DSPY=1 $(OTHER)/bin/python -m pytest -q -n 3 --dist loadfile tests/handler
	DSPY_LAMBDA_FAST=false $(OTHER)/bin/python -m pytest -q -n 3 --dist loadfile tests/handler

# Needs the SAM CLI (make tools) and, for `sam local`, Docker: it installs and starts one if it is root on Debian.
test-sam: setup tools
	$(BIN)/python -m pytest -q tests/sam

# Needs an AWS account: deploys a stack, checks it, deletes it.
verify-aws: setup tools
	PATH="$(HERE)/$(TOOLS):$(HERE)/$(BIN):$$PATH" $(BIN)/python -m dspy_lambda_infra.verify

# One bad record, one stuck call, killed processes: on the local Lambda, through SQS. STRESS_SCALE=10 runs everything.
# Also what `make test` leaves out.
isolation: setup
	$(BIN)/python -m pytest -q tests/isolation $(ALONE) $(CHAOS)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(SLOW)

chaos: setup
	$(BIN)/python -m pytest -q $(CHAOS)

stress: setup
	STRESS_SCALE=10 $(BIN)/python -m pytest -q tests/stress

# Ctrl-C stops it and is not an error.
serve: setup
	@trap : INT; $(BIN)/dspy-lambda local --project $(PROJECT) --port 3000 --model-server || test $$? -eq 130

.venv-bench/ready: requirements/bench.txt .venv/ready
	@rm -rf .venv-bench
	$(PYTHON) -m venv .venv-bench
	$(BIN)/uv pip install -q --python .venv-bench/bin/python --compile-bytecode --require-hashes -r requirements/bench.txt
	@touch $@

bench: setup .venv-bench/ready
	$(BIN)/python benchmarks/run.py --bench-python .venv-bench/bin/python

bench-tracing: setup
	$(BIN)/python -m benchmarks.tracing

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

template: setup
	$(BIN)/dspy-lambda template --project examples/quickstart --output template.yaml

.venv-docs/ready: requirements/docs.txt .venv/ready
	@rm -rf .venv-docs
	$(PYTHON) -m venv .venv-docs
	$(BIN)/uv pip install -q --python .venv-docs/bin/python --require-hashes -r requirements/docs.txt
	@touch $@

# Builds the site into site/. A broken link or anchor fails the build.
docs: setup .venv-docs/ready
	.venv-docs/bin/zensical build --clean --strict

# Writes docs/reference/ from the code; tests/docs fails if a page is out of date.
reference: setup
	$(BIN)/python docs/generate.py

# `sam build` calls this for each function of template.yaml, in the project's folder.
build-%: | $(HERE)/.venv/ready
	$(HERE)/$(BIN)/dspy-lambda build --function $* --output "$(ARTIFACTS_DIR)"

check: lint tools
	SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 $(TOOLS)/sam validate --lint --template template.yaml
	$(TOOLS)/cfn-lint --regions us-east-1 -- template.yaml
	$(TOOLS)/checkov -f template.yaml --config-file infra/dspy_lambda_infra/checkov.yaml 2>/dev/null

lock:
	$(BIN)/$(LOCK) pyproject.toml --extra cli --group dev -o requirements/dev.txt
	$(BIN)/$(LOCK) --group tools -o requirements/tools.txt
	$(BIN)/$(LOCK) --group bench -o requirements/bench.txt
	$(BIN)/$(LOCK) --group docs -o requirements/docs.txt
	echo uv | $(BIN)/$(LOCK) - -o requirements/uv.txt

# Builds the wheel and sdist for upload.
package: setup tools
	rm -rf dist
	$(BIN)/uv build -q
	$(TOOLS)/twine check --strict dist/*

clean:
	rm -rf .venv .venv-tools .venv-bench .venv-docs .venv-dspy* .aws-sam dist site examples/quickstart/.dspy-lambda .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
