# Floopy Batch: every command a contributor needs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
WORKERS ?= 3
MEMBERS := libs/common $(wildcard services/*) $(wildcard tools/*)

##@ General
help: ## Show this list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.installed ## Create .venv with every service and console script

.venv/.installed: requirements/dev.txt $(foreach m,$(MEMBERS),$(m)/pyproject.toml)
	command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: make setup PYTHON=python3.x"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation $(foreach m,$(MEMBERS),-e $(m))
	touch $@

lock: ## Renew requirements/*.txt (needs uv on PATH)
	uv lock -q
	uv export -q --all-packages --no-emit-workspace --no-header --no-dev --no-annotate -o requirements/runtime.txt
	uv export -q --all-packages --no-emit-workspace --no-header --all-groups --no-annotate -o requirements/dev.txt

##@ Check
fmt: setup ## Format the code
	$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

lint: setup ## Style
	$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q .

types: setup ## Strict types
	$(BIN)/mypy libs/common/src services/*/src tools/*/src benchmarks

contracts: setup ## Import contracts
	$(BIN)/lint-imports

check: lint types contracts ## All three

reference: setup ## Write docs/reference from the code
	$(BIN)/python -m floopy.reference docs/reference

events: setup ## Write contracts/events from the code
	$(BIN)/python -m floopy.contracts contracts/events

clients: setup ## Write docs/clients.md from what the official SDKs got back
	FLOOPY_WRITE_CLIENTS=1 FLOOPY_REQUIRE_NODE=1 $(BIN)/pytest tests/clients -q

##@ Test
test: setup ## Every suite, files beside each other (WORKERS=0: one after the other)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --randomly-dont-reorganize $(ARGS)

test-unit: setup ## Unit suites only
	$(BIN)/pytest libs/*/tests/unit services/*/tests/unit tools/*/tests/unit

bench: setup ## Benchmarks; one alone: make bench NAME=upload
	$(BIN)/python -m benchmarks $(NAME) $(ARGS)

##@ Run
up: setup ## The whole system on this machine
	$(BIN)/floopy up

demo: setup ## A real batch through the whole system, from nothing to balanced
	$(BIN)/floopy demo

kafka: setup ## Fetch Apache Kafka (Java 17 and Maven needed); the local system prefers it
	$(BIN)/floopy backends --fetch-kafka

clean: ## Remove what the commands above made
	rm -rf .venv .cache .floopy

.PHONY: help setup lock fmt lint types contracts check reference events clients test test-unit bench up demo kafka clean
