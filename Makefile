# What CI runs is what you run: `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Many tests wait for a server or a deadline, so there are more workers than cores.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(12, 3 * (os.cpu_count() or 1) // 2))')
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Without compiled modules, each worker and each child process of the tests compiles them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test checks lint types contracts pytest examples integrations browser dist dist-check bench kills format cassettes messages providers sheet clean

demo: $(VENV)/.demo  ## draw a first image: no key, no network
	@mkdir -p demo
	@$(BIN)/imgkit create "A cute baby sea otter" --output demo/
	@echo
	@echo "Next:"
	@echo "  $(BIN)/imgkit edit demo/a-cute-baby-sea-otter.png 'wearing a beret' -o demo/"
	@echo "  $(BIN)/imgkit variation demo/a-cute-baby-sea-otter.png --n 3 -o demo/"
	@echo "  $(BIN)/imgkit --help"

test: $(VENV)/.dev  ## everything that must hold
	$(MAKE) --jobs=2 checks pytest  # mypy has one core

checks: lint types contracts

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

pytest: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

examples: $(VENV)/.dev  ## build the example packages, and run their suites in a fresh environment
	$(BIN)/python examples/check.py

integrations: examples $(VENV)/integrations/.done $(VENV)/clients/.done $(VENV)/javascript/.done  ## meet real clusters, object stores, loaders, clients and the example packages, in environments of their own
	$(VENV)/integrations/bin/python -m pytest tests/integrations

browser: $(VENV)/browser/.done  ## try the page of `imgkit serve` in a Chromium, which root installs with apt-get
	@command -v chromium >/dev/null || { apt-get -qq update && apt-get -qq install --yes chromium; }
	$(VENV)/browser/bin/python -m pytest tests/browser

dist:  ## build sdist and wheel in dist/, with tools in an environment of their own
	rm -rf dist
	$(PYTHON) -m venv $(VENV)/dist
	$(VENV)/dist/bin/python -m pip --quiet --disable-pip-version-check install build twine
	$(VENV)/dist/bin/python -m build --outdir dist .
	$(VENV)/dist/bin/python -m twine check --strict dist/*

dist-check: dist  ## run the tests from the sdist, and check an installed wheel's types from outside
	$(PYTHON) tests/check_dist.py dist WORKERS=$(WORKERS)

bench: $(VENV)/.dev  ## measure against peers, which get an environment of their own
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip --quiet --disable-pip-version-check install --editable . requests-cache
	$(VENV)/peers/bin/python benchmarks/cache.py
	$(BIN)/python benchmarks/json_reply.py
	$(BIN)/python -m benchmarks --write
	$(BIN)/python benchmarks/cassettes.py

kills: $(VENV)/.dev  ## kill 200 runs of many images, and check each paid request; KILLS="--seed 7 --seconds 600"
	$(BIN)/python -m tests.kills $(KILLS)

format: $(VENV)/.dev  ## tidy the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cassettes: $(VENV)/.dev  ## record tests/cassettes anew from a server process on loopback
	$(BIN)/python -m tests.record_cassettes

messages: $(VENV)/.dev  ## write tests/messages.txt anew; read the difference before you commit it
	$(BIN)/python -m tests.support.advice

providers: $(VENV)/.dev  ## write the table of docs/providers.md anew, from the providers
	$(BIN)/python -m tests.support.provider_table

sheet: $(VENV)/.dev  ## paint docs/contact-sheet.webp anew
	$(BIN)/python docs/make_contact_sheet.py

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist

$(VENV)/.base:
	@$(PYTHON) -c 'import sys; sys.exit("imgkit needs Python 3.11 or newer; say PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: $(VENV)/.base pyproject.toml
	$(PIP) install --editable '.[cli,painter]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml
	$(PIP) install --editable . --group dev
	@touch $@ $(VENV)/.demo

$(VENV)/integrations/.done: $(VENV)/.base pyproject.toml
	$(PYTHON) -m venv $(VENV)/integrations
	$(VENV)/integrations/bin/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=25.1'
	$(VENV)/integrations/bin/python -m pip --quiet --disable-pip-version-check install --editable . --group integrations
	@touch $@

$(VENV)/clients/.done: $(VENV)/.base pyproject.toml
	$(PYTHON) -m venv $(VENV)/clients
	$(VENV)/clients/bin/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=25.1'
	$(VENV)/clients/bin/python -m pip --quiet --disable-pip-version-check install --group clients
	@touch $@

# The packages bring a Node of their own, because the newest clients need a newer one than Debian has.
$(VENV)/javascript/.done: tests/integrations/javascript/package-lock.json
	command -v npm && command -v curl || (apt-get --quiet --quiet update && apt-get --quiet --quiet install --no-install-recommends --yes npm curl)
	@mkdir -p $(VENV)/javascript
	cp tests/integrations/javascript/package.json tests/integrations/javascript/package-lock.json $(VENV)/javascript
	npm --prefix $(VENV)/javascript --silent --no-audit --no-fund clean-install
	@touch $@

$(VENV)/browser/.done: $(VENV)/.base pyproject.toml
	$(PYTHON) -m venv $(VENV)/browser
	$(VENV)/browser/bin/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=25.1'
	$(VENV)/browser/bin/python -m pip --quiet --disable-pip-version-check install --editable . --group browser
	@touch $@
