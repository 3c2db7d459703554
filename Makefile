# Needs make, a C compiler and a Python of 3.10 or later with venv; sets up everything else by itself.
#
#   PYTHON=python3.12      the interpreter to use; each version gets its own virtual environment
#   PYTHONS="a b"          those that `make test-all` uses; without it, all that are installed
#   ARGS="--quick"         passed on to `pylocks stress` or to pytest
#   WORKERS=2              processes that run the tests side by side; 0: none beside pytest's own

PYTHON  ?= python3
WORKERS ?= 2
ARGS    ?=

VERSION := $(shell $(PYTHON) -c 'import sys, sysconfig; print("%d.%d%s" % (sys.version_info[:2] + \
             ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "",)))' 2>/dev/null)
VENV    := .venv-$(VERSION)
BIN     := $(VENV)/bin
C_FILES := $(shell find csrc -name '*.[ch]' -o -name '*.cdef' -o -name '*.py')

.PHONY: help stress docs test test-all torture fuzz tsan model aarch64 musl bench lint sdist wheel clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # the stamps share one virtual environment

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile
	@awk '/^#   [A-Z]+=/ { sub(/^#   /, "     "); print }' Makefile

stress: $(VENV)/.cli ## real processes fight over real locks; ARGS="--quick" for the short run
	@$(BIN)/pylocks stress $(ARGS)

test: lint ## lint, type checks and all tests
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -p no:benchmark $(ARGS)

test-all: ## the same with every Python that is installed; a table; PYTHONS="..."
	@ARGS='$(ARGS)' WORKERS='$(WORKERS)' MAKE='$(MAKE)' $(PYTHON) .ci/every_python.py $(PYTHONS)

torture: $(VENV)/.test ## kill a process at every instruction of the lock; ARGS="--json FILE"
	@PYTHONPATH=tests $(BIN)/python -m torture $(ARGS)

lint: $(VENV)/.test ## ruff, and mypy --strict on the package
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

bench: $(VENV)/.bench ## benchmarks with pytest-benchmark; ARGS="--quick -k overcommit" for some
	@$(BIN)/python -m pytest bench $(ARGS)

fuzz: ## a million broken and hostile segments, under the address sanitizer; ARGS="--seed 2"
	@PYTHONPATH=tests $(PYTHON) -m sanitize fuzz $(ARGS)

tsan: ## threads in one process, under the thread sanitizer; ARGS="--seconds 60"
	@PYTHONPATH=tests $(PYTHON) -m sanitize tsan $(ARGS)

model: ## the protocol's model, checked by spin; ARGS="--quick"
	@PYTHONPATH=tests $(PYTHON) -m model $(ARGS)

aarch64: ## the core's checks in C on another processor, emulated; ARGS="--repeat 10"
	@PYTHONPATH=tests $(PYTHON) -m portable aarch64 $(ARGS)

musl: ## the same with another C library
	@PYTHONPATH=tests $(PYTHON) -m portable musl $(ARGS)

docs: $(VENV)/.docs ## the documentation's site, into docs/_build
	@$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build && echo docs/_build/index.html

sdist: $(VENV)/.test ## source distribution, into dist/
	@$(BIN)/python -m build --sdist

wheel: $(VENV)/.test ## binary wheel for this Python, into dist/
	@rm -rf build
	@$(BIN)/python -m build --wheel

clean: ## remove all that the other targets made
	rm -rf build dist docs/_build pylocks.egg-info .venv-*
	rm -f pylocks/*.so
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .benchmarks .hypothesis .mypy_cache .ruff_cache

define PREFLIGHT
command -v $(PYTHON) >/dev/null || { echo "pylocks: no $(PYTHON) here: install Python 3.10 or later \
with venv (Debian and Ubuntu: apt install python3-venv python3-dev), or name one, as in \
make test PYTHON=python3.12" >&2; exit 1; }; $(PYTHON) .ci/preflight.py
endef

# A stamp for each extra: an editable install, made again when the C half or the requirements
# have changed.  Python files need nothing: they are used where they lie.
$(VENV)/.%: pyproject.toml setup.py $(C_FILES)
	@$(PREFLIGHT)
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing pylocks[$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=21.3'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
