# What users, developers and CI run. Each target does its own set-up in .venv and works a second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
READY := $(VENV)/.ready

# The locks name every package, so nothing is resolved (--no-deps): a newer release somewhere cannot change or stop an installation.
ifeq ($(shell command -v uv 2>/dev/null),)
MAKE_VENV = $(PYTHON) -m venv $(VENV)
NEED_PIP = $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip  # a .venv that uv made has none
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --no-deps
else
MAKE_VENV = uv venv --python $(PYTHON) $(VENV)
NEED_PIP = true
INSTALL = uv pip install --python $(BIN)/python --compile-bytecode --no-deps  # as pip does: else the first start compiles for a second
endif

.PHONY: demo install test fuzz faults check format bench soak storm clients applications openapi pictures lock clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "comfygate needs Python 3.11 or newer; say which with: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(MAKE_VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing what comfygate runs on into $(VENV): about 40 packages"
	@$(NEED_PIP)
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q policy proxy standin
	@touch $@

$(READY): requirements-dev.lock $(RUNTIME)
	@echo "Installing what the tests need besides: about 30 packages"
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

install: $(RUNTIME)

demo: $(RUNTIME)
	@$(BIN)/comfygate demo $(DEMO_ARGS)

# The rules of the house are `make check`'s, and no tests of `make test`.
RULES := tests/test_layout.py tests/docs/test_findings.py

# In four processes (tests/distribution.py), since most tests wait for something; but for a real ComfyUI, which is one for all tests: make test TEST_PROCESSES=2
# Bytecode is kept, whatever the shell says: else each of them, and each process that tests start, compiles every module again.
TEST_PROCESSES ?= $(if $(COMFYUI_URL)$(COMFYUI_URLS),0,4)
test: $(READY)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(TEST_PROCESSES) $(RULES:%=--ignore %) --cov --cov-report=term --cov-fail-under=95 $(PYTEST_ARGS)
	$(BIN)/python -m coverage report --include='policy/*' --fail-under=100

# Properties with new random examples, round after round until the time is up; the seed of a round makes it again: make fuzz FUZZ_SEED=1
FUZZ_SECONDS ?= 300
FUZZ_TESTS ?= tests/policy tests/proxy
fuzz: $(READY)
	@end=$$(( $$(date +%s) + $(FUZZ_SECONDS) )); while [ "$$(date +%s)" -lt "$$end" ]; do \
	  seed=$${FUZZ_SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; echo "make fuzz FUZZ_SEED=$$seed"; \
	  $(BIN)/python -m pytest -q --no-header -x -m hypothesis --timeout 600 --hypothesis-profile=fuzz --hypothesis-seed="$$seed" $(FUZZ_TESTS) || exit 1; \
	  [ -z "$${FUZZ_SEED:-}" ] || break; \
	done

# ComfyUI, the gate, both, PostgreSQL killed at random moments, a hundred rounds each, and two gates of which one is lost; a seed makes the same rounds
# again: make faults FAULTS_ARGS="--rounds 10 --only gate --seed 7"
faults: $(READY)
	$(BIN)/python -m tests.faults $(FAULTS_ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --no-header -p no:cacheprovider $(RULES)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What whole requests cost beside a naive proxy and nginx, in under ten minutes: BENCH_ARGS="--only small-get", "--only prompt --profile".
bench: $(READY)
	$(BIN)/python -m bench whole $(BENCH_ARGS)

# Two minutes of one tenant with everything that its limits permit, and what a neighbour notices.
storm: $(READY)
	$(BIN)/python -m bench.storm $(STORM_SECONDS)

soak: $(READY)
	$(BIN)/python -m bench.soak $(SOAK_MINUTES)

# The clients of docs/clients.md, installed from their registries into test-output/ and run against the gate; with COMFYUI_URL in front of a real
# ComfyUI too. Writes what docs/compatibility.md is made of: python -m tests.clients.report.
clients: $(READY)
	$(BIN)/python -m pytest -q -o python_files="test_*.py run_*.py" tests/clients tests/v2/test_surface.py tests/v2/run_official.py $(PYTEST_ARGS)

# n8n and Open WebUI, whole: ten gigabytes from their registries, and a quarter of an hour the first time; n8n needs PostgreSQL.
applications: $(READY)
	$(BIN)/python -m pytest -q -o python_files="run_*.py" tests/applications $(PYTEST_ARGS)

# Schemathesis against /gate/openapi.json, with new examples each time: so many of each operation.
OPENAPI_EXAMPLES ?= 200
openapi: $(READY)
	OPENAPI_EXAMPLES=$(OPENAPI_EXAMPLES) $(BIN)/python -m pytest -q -s -o python_files="run_*.py" tests/openapi $(PYTEST_ARGS)

# The pictures of the documentation, from Chromium: look at them before they are committed.
pictures: $(READY)
	PICTURES=docs/pictures $(BIN)/python -m pytest -q tests/browser/test_pictures.py

# Renews both locks from pyproject.toml. Extras are spelled out: a name with an extra makes some versions of pip look for newer releases.
LOCK = $(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --strip-extras --no-emit-index-url --no-header --quiet
lock: $(READY)
	$(LOCK) --extra demo --extra convert --group build --upgrade -o requirements.lock
	$(LOCK) --all-extras --group build --group dev -c requirements.lock --upgrade -o requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage test-output
