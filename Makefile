PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHROMIUM ?= $(shell command -v chromium 2>/dev/null)

.PHONY: run test test-fast lint benchmark clean

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
.PHONY: browser
browser:
	@if [ -z "$(CHROMIUM)" ]; then \
		SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$SUDO apt-get update -qq && \
		$$SUDO env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	fi

test: $(VENV)/.dev browser lint
	$(BIN)/python -m pytest

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not browser"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmark: $(VENV)/.runtime
	$(BIN)/python -m maskgit_core benchmark

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
