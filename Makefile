# Two commands for a newcomer: `make demo` and `make test`. Both set up what they need.
VENV ?= .venv
VENV36 ?= .venv36
PY = $(VENV)/bin/python
export TF_CPP_MIN_LOG_LEVEL ?= 3
# Many tests wait for processes and clocks: more workers than cores. A file stays in one worker.
# The device's Python is looked for when a test starts: set-up makes it first.
PYTEST = JETMASK_PYTHON36=$${JETMASK_PYTHON36:-$$(ls $(CURDIR)/$(VENV36)/bin/python 2>/dev/null)} \
	$(PY) -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help demo run docs test test-slow test-full lint setup setup36 mutants figures bench-all tensorrt-surface clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

demo: setup  ## the whole way once, from photographs to a live page
	$(VENV)/bin/jetmask demo $(if $(DATA),--data '$(DATA)')

MARKS ?= not full and not slow

test: setup setup36  ## the tests but the slow ones, about 7 minutes on two cores
	$(PYTEST) -m '$(MARKS)' $(TESTS)

test-slow: setup setup36  ## the slow ones, about 10 minutes; CI runs both in one go
	$(PYTEST) -m 'slow and not full' $(TESTS)

test-full: setup setup36  ## the long counts: kills, mutations, soaks, emulation
	$(PYTEST) -m full $(TESTS)

lint: setup  ## format, ruff, the directions of imports, types
	$(VENV)/bin/ruff format --check -q .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

setup: $(VENV)/.ready

# A venv with the exact versions of requirements.lock, by uv where it is there and by pip otherwise.
$(VENV)/.ready: requirements.lock pyproject.toml
	@sh tests/setup.sh $(VENV) && touch $@

setup36:
	@sh tests/setup36.sh $(VENV36)

mutants: setup  ## breaks 120 operators, constants and conditions one at a time: do the tests notice? (resumable)
	JETMASK_PYTHON36=$${JETMASK_PYTHON36:-$$(ls $(CURDIR)/$(VENV36)/bin/python 2>/dev/null)} \
		nice $(PY) -m benchmarks.mutants $(MUTANTS)

figures: setup  ## the tables of README and benchmarks/*.md from the committed CSV files
	$(PY) -m benchmarks.readme_table
	$(PY) -m benchmarks.questions

bench-all: setup  ## which benchmarks are older than the shipped weights; with RUN=--run they are measured again
	$(PY) -m benchmarks.catalogue $(if $(DATA),--data '$(DATA)') $(RUN)

docs: setup  ## the documentation as a site in site/, from docs/ and the code; links are checked
	$(PY) docs/floors.py
	$(PY) docs/reference.py
	$(PY) docs/tables.py
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build -q --strict

# What a user needs to see the live page: no TensorFlow.
run:  ## the live page from nothing: a small environment, the shipped detector, drawn people
	@sh tests/setup_run.sh .venv-run
	.venv-run/bin/jetmask run --source '$(or $(SOURCE),synthetic://)' $(if $(PORT),--port $(PORT))

tensorrt-surface: setup  ## installs NVIDIA's TensorRT 8.5.3 (900 MB) and holds our subclasses against it
	sh tests/doubles/tensorrt_surface.sh

clean:  ## remove the environments and runs
	rm -rf $(VENV) $(VENV36) .venv-run runs site
