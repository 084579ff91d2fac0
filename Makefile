# Headrace. `make help` lists what there is.
PYTHON ?= python3
DURATION ?=
SEED ?=
MINUTES ?= 8
BIN := .venv/bin
# By itself xdist begins with the files of most tests; here what waits for servers does (pyproject.toml's testpaths).
ABREAST := -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-containers images env compose-test simulate check bench recovery chaos cluster scenarios quality bench-quality up down lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/ready .venv/kernels ## install everything into .venv (the other targets do it by themselves)

.venv/ready: requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …")'
	@echo "setting up .venv (hash-checked packages)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt -r requirements-dev.txt
	@touch $@

# Compiled once and kept beside the source, so that no process compiles at its start.
.venv/kernels: .venv/ready $(shell grep -ls '^@kernel' -r streams --include=*.py)
	@echo "compiling kernels"
	@$(BIN)/python -m streams.kernels
	@touch $@

# The servers, downloaded, and their classes archived for quick starts; for all clones of a user.
.venv/servers: .venv/ready infra/local/kafka.lock infra/local/cassandra.lock
	@$(BIN)/python -m infra.local prepare
	@touch $@

demo: setup .venv/servers ## the whole fraud pipeline live on this machine (DURATION=60 ends it after 60 s)
	@$(BIN)/python -m services.demo fraud $(if $(DURATION),--duration $(DURATION))

test: setup .venv/servers ## all tests, the real local servers included, but those of `make cluster` and `make compose-test`
	@$(BIN)/python -m pytest $(ABREAST) --ignore tests/integration/test_cluster.py

test-containers: setup ## the integration tests again with the servers in containers, and compose-test's (needs Docker)
	@$(BIN)/python -m tests.engines images
	@$(BIN)/python -m pytest --engine containers $(ABREAST) tests/integration tests/contract; \
		status=$$?; $(BIN)/python -m tests.engines sweep; exit $$status
	@$(BIN)/python -m pytest --engine containers tests/containers

images: setup ## build every image of docker-compose.yml here, for where none can be pulled
	@$(BIN)/python -m infra.docker.local build

env: setup ## .env for docker compose, with new secrets (IMAGES=local: those of make images; SECURE=yes: TLS and users)
	@$(BIN)/python -m infra.grafana
	@$(BIN)/python -m infra.docker.env $(if $(IMAGES),--$(IMAGES)) $(if $(filter yes,$(SECURE)),--secure)

compose-test: images ## docker-compose.yml brought up, watched at work and taken down
	@$(BIN)/python -m pytest --engine containers tests/containers

simulate: setup ## mishaps in every order in a simulated cluster, and what finds a protocol that lacks a step (CASES=10000)
	@CASES=$(or $(CASES),10000) $(BIN)/python -m pytest tests/unit/streams/test_simulation.py --timeout 0 -s

check: setup ## style, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup .venv/servers ## throughput, latency and their limits, into build/bench.json
	@$(BIN)/python -m tests.bench

recovery: setup .venv/servers ## how soon a replacement scores after kill -9 with 1,000,000 entities in state
	@$(BIN)/python -m tests.recovery

chaos: setup .venv/servers ## the fault campaign, compared with an oracle (SEED=7 repeats one, MINUTES=8, CLUSTER=yes: on clusters)
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(CLUSTER),--cluster --rate 800) $(if $(SEED),--seed $(SEED))

cluster: setup .venv/servers ## three brokers, three Redis masters, two workers: one of each server dies, and the oracle finds nothing lost
	@$(BIN)/python -m pytest -q -s tests/integration/test_cluster.py

scenarios: setup ## the models while fraud changes its pattern, and while examples are bad (plots in build/)
	@$(BIN)/python -m tests.scenarios

up: setup .venv/servers ## start Kafka, Valkey and Cassandra on this machine and keep them
	@$(BIN)/python -m infra.local up

down: setup ## stop them
	@$(BIN)/python -m infra.local down

lock: setup ## renew the pinned requirements from requirements*.in (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header requirements.in -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header requirements-dev.in -o requirements-dev.txt

quality: setup .venv/servers ## the handbook's transactions: backtest, its bars, and a replay compared with it (minutes)
	@$(BIN)/python -m tests.quality

bench-quality: setup ## every recipe over the handbook's transactions: AUC, AP, CP@100, and its CPU an event
	@$(BIN)/python -m tests.quality.recipes

clean: ## stop the servers of `make up` and remove what was built here (not .venv)
	@[ ! -d .headrace ] || [ ! -x $(BIN)/python ] || $(BIN)/python -m infra.local down
	rm -rf build .headrace .mypy_cache .ruff_cache .pytest_cache .hypothesis
