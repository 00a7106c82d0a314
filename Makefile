PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHROMIUM ?= $(shell command -v chromium 2>/dev/null)
NODE ?= $(shell command -v node 2>/dev/null)
NPM ?= $(shell command -v npm 2>/dev/null)
# Processes of one thread each; what drives a browser has one for itself (tests/conftest.py).
WORKERS ?= 2

.PHONY: run test test-fast test-js lint lint-js coverage benchmark browser wheel clean

# A stamp per requirements file: installing again is a no-op until the file changes.
$(VENV)/.runtime: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@ $(VENV)/.runtime

run: $(VENV)/.runtime
	$(BIN)/python app.py

# Debian's Chromium, for the tests that drive the page; skipped where there is one already.
browser:
	@if [ -z "$(CHROMIUM)" ]; then \
		SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$SUDO apt-get update -qq && \
		$$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	fi

test: $(VENV)/.dev browser lint test-js
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

# What takes a minute: neither a browser nor a training that is started as a command.
test-fast: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not browser and not slow"

# The page's JavaScript, the parts that need no browser, in node's own test runner.
test-js:
	@if [ -z "$(NODE)" ]; then echo "node is not installed: the tests in tests/js are left out"; \
	else "$(NODE)" --test tests/js/*.test.mjs; fi

lint: $(VENV)/.dev lint-js
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# ESLint is installed beside the tests on first use; who has no npm, or no network, goes without.
lint-js:
	@if [ -z "$(NPM)" ]; then echo "npm is not installed: the JavaScript is not linted"; \
	elif [ tests/js/node_modules/.installed -nt tests/js/package.json ] || (cd tests/js && \
		"$(NPM)" install --silent --no-audit --no-fund --no-package-lock && \
		touch node_modules/.installed); then "$(NODE)" tests/js/lint.mjs; \
	else echo "ESLint could not be installed: the JavaScript is not linted"; fi

coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not browser" --cov --cov-report term --cov-report html

benchmark: $(VENV)/.runtime
	$(BIN)/python -m maskgit_core benchmark

wheel: $(VENV)/.dev
	$(BIN)/python -m hatchling build

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis dist htmlcov .coverage tests/js/node_modules
