# Everything a developer does. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
# Debian keeps servers where only root looks.
export PATH := $(PATH):/usr/sbin
# One cargo at a time; cargo itself uses every core.
.NOTPARALLEL:

CARGO ?= cargo
LISTEN ?= 127.0.0.1:8080
JOBS ?= 300
SEED ?= 1
KILLS ?=
MINUTES ?= 10
MIB ?= 5120
BODY_ROUNDS ?= 2
ROUNDS ?= 7
SECONDS_EACH ?= 4
SETTLEMENTS ?= 1000
AT_ONCE ?= 64

CLIENTS := tests/clients
CLIENTS_READY := $(patsubst %/package-lock.json,%/node_modules/.package-lock.json,$(wildcard $(CLIENTS)/package-lock.json))
# A shop on the Rust middleware of the ecosystem; a crate of its own, with a lock file of its own.
SELLER := tests/servers/axum
SELLER_READY := target/peers/debug/axum-seller
SELLER_FAST := target/peers/release/axum-seller
SCRIPTS := .ci/run scripts/ensure scripts/timed scripts/audit scripts/chaos scripts/fuzz scripts/release

.PHONY: help
help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'
	@echo
	@echo '  Variables: LISTEN=$(LISTEN) for demo, MINUTES=$(MINUTES) for fuzz, ROUNDS=$(ROUNDS) and SECONDS_EACH=$(SECONDS_EACH) for bench and bench-paid,'
	@echo '  SETTLEMENTS=$(SETTLEMENTS) and AT_ONCE=$(AT_ONCE) for bench-settle.'

.PHONY: demo
demo: build-tools ## start the gateway with stand-ins for all outside services, make paid requests, keep serving
	$(CARGO) run --release --locked -- demo --listen $(LISTEN)

.PHONY: test
test: build-tools test-tools ## formatting, lints, and every test, those with servers and Node clients too
	@scripts/timed scripts $(MAKE) --no-print-directory scripts-check
	@scripts/timed fmt $(CARGO) fmt --check
	@$(CARGO) fmt --check --manifest-path $(SELLER)/Cargo.toml
	@scripts/timed clippy $(CARGO) clippy --locked --all-targets -- -D warnings
	@scripts/timed build $(CARGO) test --locked --no-run --lib --bins --tests
	@scripts/timed tests $(CARGO) test --locked --no-fail-fast --lib --bins --tests -- --include-ignored
	@scripts/timed doctests $(CARGO) test --locked --doc

.PHONY: chaos
chaos: build-tools ## many purchases under kills and faults, then the money is counted: JOBS=5000 SEED=7 KILLS=1000
	@scripts/ensure redis-server faketime
	scripts/chaos --jobs $(JOBS) --seed $(SEED) $(if $(KILLS),--kills $(KILLS))

.PHONY: check
check: build-tools ## the fast half of test: formatting, lints, and the tests that need no server
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path $(SELLER)/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked --lib --bins

.PHONY: release
release: build-tools ## the program for use, in target/profiled/galaksio: optimised by a profile of itself under load
	scripts/release

.PHONY: bench
bench: release ## the edge against nginx, as a table and in target/bench/edge.json (under five minutes after the build)
	@scripts/ensure nginx wrk python3
	$(CARGO) build --release --locked --example floor
	python3 -B benches/edge/bench.py --galaksio target/profiled/galaksio --floor target/release/examples/floor --rounds $(ROUNDS) --seconds $(SECONDS_EACH)

.PHONY: bench-settle
bench-settle: build-tools $(CLIENTS_READY) ## our facilitator against the official one, as tables and in target/bench/settle.json (four minutes)
	$(CARGO) bench --locked --bench settle -- --settlements $(SETTLEMENTS) --at-once $(AT_ONCE)

.PHONY: bench-bodies
bench-bodies: build-tools ## large bodies against nginx and curl: throughput, processor time and memory (MIB=5120 each; five minutes)
	@scripts/ensure nginx curl
	BENCH_MIB=$(MIB) BENCH_ROUNDS=$(BODY_ROUNDS) $(CARGO) bench --locked --bench bodies

.PHONY: bench-paid
bench-paid: release $(CLIENTS_READY) $(SELLER_FAST) ## paid requests beside x402-axum and @x402/express, as a table and in target/bench/paid.json (under five minutes after the build)
	@scripts/ensure redis-server
	$(CARGO) bench --locked --bench paid -- --galaksio target/profiled/galaksio --rounds $(ROUNDS) --seconds $(SECONDS_EACH)

.PHONY: audit
audit: ## advisories, licences, bans and sources of the dependencies, by deny.toml
	scripts/audit

.PHONY: fuzz
fuzz: build-tools ## each fuzz target for MINUTES minutes
	scripts/fuzz $(MINUTES)

.PHONY: doc
doc: build-tools ## the documentation of the source, in target/doc; broken links are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

.PHONY: fmt
fmt: ## format the source
	$(CARGO) fmt
	$(CARGO) fmt --manifest-path $(SELLER)/Cargo.toml

.PHONY: clean
clean: ## remove everything that was built or installed in the tree
	$(CARGO) clean
	rm -rf $(CLIENTS)/node_modules fuzz/target

# What building needs, and what the tests need beyond it. Installed where we may, else the line to run is printed.
.PHONY: build-tools
build-tools:
	@scripts/ensure cc cmake

.PHONY: test-tools
test-tools: $(CLIENTS_READY) $(SELLER_READY)
	@scripts/ensure redis-server curl faketime

$(CLIENTS)/node_modules/.package-lock.json: $(CLIENTS)/package-lock.json
	@scripts/ensure node npm
	@scripts/timed clients npm ci --ignore-scripts --no-audit --no-fund --prefix $(CLIENTS)
	@touch $@

$(SELLER_READY): $(SELLER)/Cargo.toml $(SELLER)/Cargo.lock $(SELLER)/src/main.rs
	@scripts/timed seller $(CARGO) build --locked --manifest-path $(SELLER)/Cargo.toml --target-dir target/peers
	@touch $@

$(SELLER_FAST): $(SELLER)/Cargo.toml $(SELLER)/Cargo.lock $(SELLER)/src/main.rs
	$(CARGO) build --release --locked --manifest-path $(SELLER)/Cargo.toml --target-dir target/peers
	@touch $@

.PHONY: scripts-check
scripts-check:
	@for script in $(SCRIPTS); do bash -n "$$script"; grep -q '^set -euo pipefail$$' "$$script"; done
	@for script in benches/edge/*.py; do python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$$script"; done
