.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PROTO := proto/ditplan/v1/plan.proto proto/ditplan/v1/planner.proto proto/ditplan/v1/generation.proto \
         proto/ditplan/v1/executor.proto proto/ditplan/dispatch/v1/dispatch.proto

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Make .venv with the ditplan command in it (CPU torch)

$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[executor,dev]'
	touch $@

proto: setup ## Regenerate the Python code of the contract
	cd proto && PATH=$(CURDIR)/$(BIN):$$PATH python -m grpc_tools.protoc -I . --python_out=. --grpc_python_out=. \
	  --mypy_out=. --mypy_grpc_out=. $(PROTO:proto/%=%)

.PHONY: help setup proto
