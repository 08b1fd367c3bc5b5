.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ORACLE ?= tests/data/oracle
PROTO := $(wildcard proto/ditplan/v1/*.proto proto/ditplan/dispatch/v1/*.proto \
  proto/ditplan/runtime/v1/*.proto proto/ditplan/keda/*.proto)
# One thread a process: several of them share the machine.
ONE_THREAD := OMP_NUM_THREADS=1

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{ \
	  sub(/:.*/, "", $$1); printf "  %-14s %s\n", $$1, $$2 }'

setup: $(VENV)/.ready ## Make .venv with the ditplan command in it

# torch first and pinned: where a CPU build can be had, nothing later replaces it by another.
$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[executor,dev]'
	touch $@

demo: setup ## Draw pictures through planner and executor, uncached and cached, and compare
	$(ONE_THREAD) $(BIN)/python deploy/demo/demo.py

test: setup ## Run the whole test suite
	$(ONE_THREAD) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: setup ## Lint, types, import rules, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint
	$(MAKE) --no-print-directory proto
	git diff --exit-code --stat -- proto

conformance: setup ## Check planner and engine against recorded data: ORACLE=DIR
	$(ONE_THREAD) $(BIN)/python -m tests.conformance $(ORACLE)

fuzz: setup ## Compile 20,000 damaged configs: no traceback, no hang, no memory
	$(ONE_THREAD) $(BIN)/python -m tests.fuzz

rehearse: setup ## Play rollouts, drains and lost nodes with the manifests' pods as processes
	DITPLAN_REHEARSE=1 $(ONE_THREAD) $(BIN)/python -m pytest tests/deploy/test_rehearsal.py

chaos: setup ## Kill, stop and end planner and executors under load: nothing accepted is lost
	$(ONE_THREAD) $(BIN)/python -m tests.chaos

hostile: setup ## Send 10,000 hostile requests to a planner: each gets its status
	$(ONE_THREAD) $(BIN)/python -m tests.hostile

chaos-ranks: setup ## Kill, stop and fail ranks 100 times: no hang, every next picture right
	$(ONE_THREAD) $(BIN)/python -m tests.chaos_ranks

# Whole runs of all parts write what the README and docs/measured say; other runs go to out/bench.
bench: setup ## Measure everything beside its peers, or PARTS="engine planner"; LOOK=1 is quick
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(ONE_THREAD) $(BIN)/python -m tests.bench $(PARTS) $(if $(LOOK),--look) \
	  $(if $(PARTS)$(LOOK),,--out docs/measured --readme README.md)

# Tools of their own, apart from what ditplan runs with; promtool comes with Prometheus.
$(VENV)/manifests/.ready: pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --editable '.[manifests]'
	touch $@

manifests: setup $(VENV)/manifests/.ready ## Check what Kubernetes is told: schemas, policies, rules (a minute)
	PATH=$(CURDIR)/$(VENV)/manifests/bin:$$PATH $(VENV)/manifests/bin/python -m tests.deploy.manifests
	PATH=$(CURDIR)/$(VENV)/manifests/bin:$$PATH $(ONE_THREAD) $(BIN)/python -m pytest tests/deploy/test_manifests*.py

gpu: setup ## Run the tests that need a GPU
	DITPLAN_TEST_GPU=1 $(ONE_THREAD) $(BIN)/python -m pytest tests/gpu

demo-model: setup ## Train the demo model anew, into out/demo-model (about 90 minutes)
	cd deploy/demo && ../../$(BIN)/python -m training --out ../../out/demo-model

docs: demo ## Make the pictures of the README and docs/yaml.md anew
	$(BIN)/ditplan schema --format markdown > docs/yaml.md
	cp out/demo/contact-sheet.png docs/contact-sheet.png
	$(BIN)/ditplan preview deploy/examples/cache-scm.yaml --model black-forest-labs/FLUX.1-dev \
	  --steps 28 --format svg --out docs/plan.svg

# As root, with buildah and debootstrap; out/images keeps them.
images: setup ## Build the container images, look into them, draw a picture through them (minutes)
	$(ONE_THREAD) $(BIN)/python -m tests.deploy.images

# The lock files' present versions stay where pyproject.toml lets them; remove them for newer ones.
# CPU_TORCH says where torch without CUDA is: PyTorch's index, or --find-links DIRECTORY.
CPU_TORCH ?= --torch-backend cpu
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-header --no-emit-index-url --no-emit-find-links
lock: setup ## Pin what the container images hold: deploy/images/*.lock
	$(BIN)/pip install --quiet --editable '.[lock]'
	$(LOCK) deploy/images/build.in --output-file deploy/images/build.lock
	$(LOCK) pyproject.toml --extra executor --extra otel \
	  --output-file deploy/images/executor-cuda.lock
	$(LOCK) pyproject.toml --extra otel --constraints deploy/images/executor-cuda.lock \
	  --output-file deploy/images/planner.lock
	$(LOCK) pyproject.toml deploy/images/cpu.in --extra executor --extra otel $(CPU_TORCH) \
	  --constraints deploy/images/executor-cuda.lock --output-file deploy/images/executor-cpu.lock

proto: setup ## Regenerate the Python code of the contract
	cd proto && PATH=$(CURDIR)/$(BIN):$$PATH python -m grpc_tools.protoc -I . \
	  --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
	  $(PROTO:proto/%=%)

clean: ## Remove what the other targets made
	rm -rf $(VENV) out .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: help setup demo test check conformance fuzz chaos hostile chaos-ranks bench \
  manifests rehearse gpu demo-model docs images lock proto clean
