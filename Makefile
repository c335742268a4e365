# Every command of the project. What runs locally is in runtime/; settings are in .env (made from .env.example by the first `make up`).
# Another platform on the same machine: HEADRACE_ENV_FILE=path/to/.env make up

SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
BOOTSTRAP := .runtime/bootstrap
UV := $(BOOTSTRAP)/bin/uv
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo "sudo -n")
COMPILE := compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock'
LOCKS := $(patsubst %.in,%,$(wildcard requirements/*.in))
# PostgreSQL's and the data's wheels are wanted for their files only; services come before dev, which includes them.
ALONE := requirements/postgres requirements/cdnow requirements/flights
FUZZ_TARGETS := cloudevents segment otlp_json otlp_protobuf inflate write_key binary keys http2

.PHONY: help native try-native env secrets compose-tool test-compose audit up down status logs clean demo demo-ml demo-drift docs test fuzz lint bench bench-startup bench-collector bench-enricher bench-loaders bench-curate bench-serving bench-queue bench-lake bench-scoring verify verify-controls lock lock-jars services dev

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-14s %s\n", $$1, $$2}'

up: services try-native ## Fetch, build, configure and start everything (PROFILE=core: without Airflow, Trino and Superset; models: with MLflow)
	@$(PYTHON) -m runtime up $(if $(PROFILE),--profile $(PROFILE))

down: ## Stop everything
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m runtime down; else echo "Nothing was running."; fi

status: services ## State, ports, memory, uptime and log of every process
	@$(PYTHON) -m runtime status

logs: services ## The ends of all logs, or follow one (NAME=kafka)
	@$(PYTHON) -m runtime logs $(NAME)

clean: ## Stop, and remove all data (YES=1: do not ask; ALL=1: what was fetched too)
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m runtime clean $(if $(YES),--yes) $(if $(ALL),--all); else echo "There is nothing to remove."; fi

demo: services ## Send real events through the running platform and account for every one
	@$(PYTHON) -m cli demo

demo-ml: services ## The life of a churn model on real data, with PostgreSQL, MinIO and MLflow of its own (KEEP=1 leaves them)
	@$(PYTHON) -m ml.demo

demo-drift: services ## Customers change: a served model is watched, renewed and replaced, on servers of its own (KEEP=1 leaves them)
	@$(PYTHON) -m ml.drift_demo

docs: services ## Build the documentation of the gold tables (dbt) and serve it on DOCS_PORT
	@$(PYTHON) -m cli docs

env: ## Write .env with random secrets, where there is none: for `docker compose up`
	@python3 -m runtime.envfile .env .env.example

secrets: ## Write a random secret or a certificate for production to each file in SECRETS_DIR (.secrets) that is not there
	@python3 -c "from pathlib import Path; from runtime.envfile import write_secrets; \
	  print('Wrote:', ', '.join(write_secrets(Path('$(or $(SECRETS_DIR),.secrets)'), Path('.env.example'))) or 'nothing, all are there')"

test-compose: dev ## docker-compose.yml on a real engine, from nothing to nothing (PROFILE=core; PRODUCTION=1; MODELS=1; REAL_IMAGES=1; KEEP=1)
	@PROFILE=$(or $(PROFILE),full) $(PYTHON) -m tests.compose.run

audit: services ## List every locked package (.runtime/sbom.json), and fail where one is known to be vulnerable or could not be checked
	@$(PYTHON) -m runtime.audit

compose-tool: dev ## Build `docker compose` from its Go module, for `make lint` on a machine without it
	@$(PYTHON) -c "from pathlib import Path; from tests.compose.engine import plugin; print(plugin(Path.cwd(), 'docker-compose'))"

test: dev native ## All tests, on a platform of their own (KEEP=1 leaves it running; ARGS go to pytest)
	@$(PYTHON) -m tests.run $(ARGS)

lint: dev ## ruff, mypy, the import rules, the tracking plan (AGAINST=origin/main: and whether its schemas may follow those there)
	@$(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy . && .venv/bin/lint-imports && $(PYTHON) -m tests.compose.config && $(PYTHON) -m cli schemas check $(if $(AGAINST),--against $(AGAINST))

fuzz: dev native ## Fuzz what reads a client's bytes, SECONDS (60) for each target, or one of them (TARGET=segment)
	@for target in $(or $(TARGET),$(FUZZ_TARGETS)); do echo "$$target" && $(PYTHON) -m tests.fuzz.collector $$target -max_total_time=$(or $(SECONDS),60) || exit 1; done

bench: bench-startup bench-collector bench-enricher bench-loaders bench-curate bench-serving bench-queue bench-lake bench-scoring ## All measurements (tables go to benchmarks/results/)

bench-startup: dev ## Time to start and idle memory, on a platform of its own (COLD=1: from nothing)
	@$(PYTHON) -m benchmarks.startup $(if $(COLD),--cold)

bench-collector: dev native ## Events a second over REST and gRPC, beside the OpenTelemetry Collector (a running platform is not needed)
	@$(PYTHON) -m benchmarks.collector

bench-enricher: dev ## Events a second of the enricher, with and without scores, on the running platform
	@$(PYTHON) -m benchmarks.enricher

bench-loaders: dev ## Events a second of the enricher and of both loaders, on the running platform
	@$(PYTHON) -m benchmarks.loaders

bench-curate: dev ## What a curation costs by the size of silver and of its input, on lakes of its own on the running platform (ARGS)
	@$(PYTHON) -m benchmarks.curate $(ARGS)

bench-serving: dev ## Scores a second of the enrichment API and the p99 of one event (a running platform is not needed; ARGS)
	@$(PYTHON) -m benchmarks.serving $(ARGS)

bench-queue: dev ## Scoring through Kafka: requests a second of the worker and of Spark (a running platform is not needed; ARGS)
	@$(PYTHON) -m benchmarks.queue $(ARGS)

bench-lake: dev native ## A million simulated events and CDNOW, from the producers to gold, on a platform of its own (ARGS)
	@$(PYTHON) -m benchmarks.lake $(ARGS)

bench-scoring: dev ## Rows a second of batch inference, and its memory by the number of rows (a running platform is not needed; ARGS)
	@$(PYTHON) -m benchmarks.scoring $(ARGS)

verify: dev native ## Send, harm (FAULTS=60 SEED=1 ACKS=20000), and account for every event, on a platform of its own (KEEP=1 leaves it)
	@$(PYTHON) -m verify $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED)) $(if $(ACKS),--acks $(ACKS)) $(ARGS)

verify-controls: dev native ## Put five mistakes into the services, one after the other: each must be noticed
	@$(PYTHON) -m verify controls $(if $(SEED),--seed $(SEED)) $(ARGS)

try-native: # a platform without it is only slower
	@$(MAKE) --no-print-directory native || echo "The collector runs without its native code."

native: collector/_native.abi3.so ## Build the collector's native code (Rust; it is optional)

lock: $(UV) ## Compile requirements/*.in anew, with hashes
	@for name in $(filter-out $(ALONE),$(LOCKS)); do echo "$$name.txt" && $(UV) pip $(COMPILE) $(UPGRADE) $$name.in -o $$name.txt || exit 1; done
	@for name in $(ALONE); do echo "$$name.txt" && $(UV) pip $(COMPILE) $(UPGRADE) --no-deps $$name.in -o $$name.txt || exit 1; done

lock-jars: services ## Write runtime/maven/*/sha256.txt anew, after a change of a pom.xml
	@$(PYTHON) -m runtime lock-jars

# cargo checks every crate against Cargo.lock. Debian's cargo is recent enough.
collector/_native.abi3.so: collector/native/Cargo.toml collector/native/Cargo.lock $(wildcard collector/native/src/*.rs) | .venv/bin/python
	@command -v cargo > /dev/null || { echo "Installing cargo"; $(SUDO) sh -c 'apt-get update -qq && apt-get install -y -qq cargo' > /dev/null 2>&1; } \
	  || { echo "headrace: cargo is missing: install it with: sudo apt-get install -y cargo" >&2; exit 1; }
	@echo "Building the collector's native code"
	@CARGO_TARGET_DIR=.runtime/build/native PYO3_PYTHON=$(abspath $(PYTHON)) cargo build --quiet --release --locked --manifest-path collector/native/Cargo.toml
	@cp .runtime/build/native/release/lib_native.so $@

# ---- the environment: made anew only where the requirements changed ------------------------------------------------------------------
services: .venv/stamps/services
dev: .venv/stamps/dev

# dev has all of services: who has it once keeps it.
.venv/stamps/services: requirements/services.txt | .venv/bin/python
	@if [ -f .venv/stamps/dev ]; then $(MAKE) --no-print-directory dev; else \
	  echo "Installing the services' packages" && $(UV) pip sync --quiet --require-hashes --python $(PYTHON) requirements/services.txt; fi
	@mkdir -p $(@D) && touch $@

.venv/stamps/dev: requirements/dev.txt | .venv/bin/python
	@echo "Installing the packages for tests" && $(UV) pip sync --quiet --require-hashes --python $(PYTHON) requirements/dev.txt
	@mkdir -p $(@D) && touch $@ .venv/stamps/services

.venv/bin/python: | $(UV)
	@$(UV) venv --quiet --python 3.11 .venv

$(UV): requirements/bootstrap.txt
	@python3 -c 'import ensurepip, venv' 2> /dev/null || $(SUDO) sh -c 'apt-get update -qq && apt-get install -y -qq python3 python3-venv' > /dev/null \
	  || { echo "headrace: python3 with venv is missing: install it with: sudo apt-get install -y python3 python3-venv" >&2; exit 1; }
	@python3 -m venv --clear $(BOOTSTRAP) && $(BOOTSTRAP)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt && touch $(UV)
