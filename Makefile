# `make run` and `make test` are all that a newcomer needs: each makes .venv and installs what it
# needs from the package index. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PORT ?= 8000
# wasmtime, or wasmer: `make run ENGINE=wasmer PYTHON=python3.10`.
ENGINE ?= wasmtime
EXTRA_wasmer = ,wasmer
FUZZ_SECONDS ?= 60
SOAK_REQUESTS ?= 1000000
# A process for each processor; a file's tests stay together, and so do what they share. When one of
# them dies the run ends: it would wait for ever for some of what the other one was to do.
PARALLEL = --numprocesses auto --dist loadfile --max-worker-restart 0
# Debian's packages that the full suite uses; without one of them its tests are skipped, loudly.
DEBIAN_PACKAGES = wrk

.DEFAULT_GOAL := help
.PHONY: help run test check format bench soak docs plugins deps test-lowest test-pythons test-wasmer fuzz hostile clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# A stamp for each environment: made anew when what it is made from changes.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	@touch $@

# One for each engine and Python: wasmer wants an old one.
RUN = $(VENV)-run-$(ENGINE)-$(notdir $(PYTHON))
$(RUN)/.installed: pyproject.toml
	@python=$$(.ci/find-python $(PYTHON)) && echo "$$python -m venv $(RUN)" && \
	    "$$python" -m venv $(RUN)
	$(RUN)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(RUN)/bin/python -m pip install --quiet --editable ".[all$(EXTRA_$(ENGINE))]" --group example
	@touch $@

run: $(RUN)/.installed ## serve example_app on $(PORT) and print what to try
	@PORT=$(PORT) sh example_app/try.sh
	WASM_ENGINE=$(ENGINE) $(RUN)/bin/python -m uvicorn example_app.main:app --port $(PORT)

test: $(VENV)/.installed ## run the whole suite
	$(BIN)/python -m pytest $(PARALLEL)

check: $(VENV)/.installed ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m wasm_middleware check plugins.yaml --app example_app.main:app > /dev/null
	cd example_app/plugins && sha256sum --check --quiet SHA256SUMS
	cd tests/plugins && sha256sum --check --quiet SHA256SUMS

format: $(VENV)/.installed ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed ## print what a request costs, as ratios in one run; QUICK=1 for a first look
	$(BIN)/python -m bench $(if $(QUICK),--quick)

hostile: $(VENV)/.installed ## play every module that attacks, or those in CASES, and print what came of it
	WASM_ENGINE=$(ENGINE) $(BIN)/python -m tests.hostile $(CASES)

soak: $(VENV)/.installed ## drive SOAK_REQUESTS (1,000,000) through plugins that fail now and then
	$(BIN)/python -m bench.soak --requests $(SOAK_REQUESTS)

docs: $(VENV)/.installed ## make docs/compatibility.md anew
	$(BIN)/python -m tests.compatibility

plugins: ## rebuild the .wasm files from their sources (checks its tools first)
	$(PYTHON) example_app/plugins/build.py

deps: ## install the Debian packages that the full suite uses
	@missing=""; for package in $(DEBIAN_PACKAGES); do \
	    dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	    apt-get update -q && apt-get install -q -y --no-install-recommends $$missing; fi

# The oldest releases that pyproject.toml allows of what users bring themselves.
$(VENV)-lowest/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-lowest/bin/python -m pip install --quiet --editable ".[all]" --group test --group lowest \
	    "starlette==1.0.0" "fastapi==0.133.0" "uvicorn==0.40.0" "wasmtime==45.0.0" "grpcio==1.74.0"
	@touch $@

# Apart from the rest: atheris is large, and not there for every Python.
$(VENV)-fuzz/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-fuzz/bin/python -m pip install --quiet --editable ".[all]" --group fuzz
	@touch $@

fuzz: $(VENV)-fuzz/.installed ## run each fuzz target for FUZZ_SECONDS (60), or those in TARGETS
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(VENV)-fuzz/bin/python -m fuzz $(TARGETS)

# What a dependency, or an old Python, may change: `make test` has shown plugins in Python ([null) and
# a hundred thousand requests, and the engine's public calls are slow.
OTHERS = -k "not wasmtime-public and not [null and not -null and not very_many_requests"

test-lowest: $(VENV)-lowest/.installed ## the suite with the oldest dependencies allowed
	$(VENV)-lowest/bin/python -m pytest $(PARALLEL) --ignore tests/e2e/envoy --ignore tests/fuzz \
	    --ignore tests/bench --ignore tests/hostile $(OTHERS)

# wasmer has wheels for CPython 3.10 and older, and so this has Starlette and FastAPI of that time.
$(VENV)-wasmer/.installed: pyproject.toml
	"$$(.ci/find-python python3.10)" -m venv $(VENV)-wasmer
	$(VENV)-wasmer/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(VENV)-wasmer/bin/python -m pip install --quiet --editable ".[all,wasmer]" --group test
	@touch $@

test-wasmer: ## the engine, ABI, stream, ASGI and example tests on CPython 3.10 and wasmer
	@if .ci/find-python python3.10 >/dev/null; then \
	    $(MAKE) --no-print-directory $(VENV)-wasmer/.installed && \
	    $(VENV)-wasmer/bin/python -m pytest $(PARALLEL) tests/abi tests/engines tests/proxy_wasm tests/runtime \
	        tests/asgi tests/e2e/test_example.py $(OTHERS); \
	else \
	    echo "SKIPPED test-wasmer: no CPython 3.10 on PATH or under pyenv, and wasmer has wheels for no later one"; \
	fi

# `make test` has shown the Python of $(VENV).
test-pythons: $(VENV)/.installed ## what depends on the Python, on 3.10 to 3.13, or on those in PYTHONS
	@$(BIN)/python -m tests.pythons $(VENV) $(PYTHONS)

clean: ## remove environments and caches
	rm -rf $(VENV) $(VENV)-run-* $(VENV)-lowest $(VENV)-fuzz $(VENV)-wasmer $(VENV)-3.* .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis
