# Everything runs from one virtual environment that `setup` makes; every target sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test check chaos storms testbed testbed-down testbed-test format protos docs methods bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/covey demo

# The files of tests in their order, each by one of these processes, twice as many as cores: daemons wait for each other a good deal.
TEST_PROCESSES ?= 4

test: setup
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --ignore=tests/testbed

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/contract/test_protos.py

# A real federation in which processes, machines, links and data fail; CHAOS="--seed 7 --minutes 10", and --help.
CHAOS ?=

chaos: setup
	$(BIN)/python -m covey.testing.chaos $(CHAOS)

# Gossip's state machines in many more storms than `make test` has: STORMS times as many, about 10 minutes of processor.
STORMS ?= 60

storms: setup
	COVEY_STORMS=$(STORMS) $(BIN)/python -m pytest --timeout 0 -q tests/unit/gossip -k "storm or t5 or t7"

# A federation in containers: needs Docker with Compose v2, and nothing else.
testbed:
	docker/testbed up

testbed-down:
	docker/testbed down

# Its drills; skipped where no Docker engine answers.
testbed-test: setup
	$(BIN)/python -m pytest tests/testbed

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: setup
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
	    --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=. covey/protos/*.proto

# The API reference, from the docstrings, into build/docs.
docs: setup
	$(BIN)/pdoc --docformat google --output-directory build/docs covey '!covey.protos'

# The page of all methods, from what is installed and from what submission refuses.
methods: setup
	$(BIN)/python -m covey.testing.catalogue docs/methods.md

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
