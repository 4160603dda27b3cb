# `make` alone explains itself. Each target is a plain command or a short script one can also type.
SHELL := /bin/bash
CARGO ?= cargo
SIZE ?= 8
SEED ?= 1
HISTORIES ?= 1000
MIX ?= storm
RUNS ?= 1
FROM ?= 1
SECONDS ?= 600
BUILDER ?= docker
IMAGE ?= understudy

.DEFAULT_GOAL := help
.PHONY: help setup build image demo test t0 t1 t2 t3 e2e kills rounds soak replay trace simulate syncpoints bugs fuzz bench fmt lint deny advisories

help: ## What can be done here
	@echo "Understudy: a second, always-recoverable copy of a VM's disks on another node."
	@echo
	@echo "First:  make demo      disks with files on them survive the loss of their primary"
	@echo "Then:   make test      everything that must hold, as far as one machine can show it"
	@echo
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'
	@echo
	@echo "Random tests print their seed; UNDERSTUDY_SEED=N runs one again."
	@echo "What the machine lacks is named with its remedy and skipped; with CI=true it fails."

setup: ## Install what the tests need (as root), or say what is missing
	@scripts/setup.sh

build: ## Build every binary
	$(CARGO) build --locked --workspace --bins

image: ## The product's image, under the name IMAGE=registry/name:tag; BUILDER=podman or buildah does it too
	$(BUILDER) build --file images/Dockerfile --tag $(IMAGE) .

demo: ## Two engines, a replication, a killed primary, a failover, a verdict
	@$(CARGO) build --locked --quiet --workspace --bins
	@target/debug/understudy-tests demo

test: setup ## Set up, then T0 to T3; ends with the number of passed and failed
	@scripts/test.sh t0 t1 t2 t3

t0: ## Formatting, lints, licences, layers, generated files
	@scripts/test.sh t0

t1: ## Unit, property, crash and simulation tests in one process
	@scripts/test.sh t1

t2: ## Processes: engines, NBD clients, a real QEMU pair
	@scripts/test.sh t2

t3: ## A real API server: the CRDs, the chart, the operator, the CSI driver
	@scripts/test.sh t3

e2e: ## A whole cluster: helm install, node loss, failover, … RUNS=n times (as root)
	@scripts/setup.sh e2e
	@$(CARGO) build --locked --quiet --workspace --bins
	@target/debug/understudy-tests e2e --runs $(RUNS) $(if $(ONLY),--only $(ONLY))

kills: ## Kill the operator, and the API server, after every single change of each action
	@$(CARGO) build --locked --quiet --workspace --bins
	UNDERSTUDY_KILLS=all $(CARGO) test --locked --package understudy-tests --test t3_operator kills:: -- --nocapture --test-threads 2

rounds: ## 1000 lives of a volume by the CSI driver: nothing is left (as root)
	@$(CARGO) build --locked --quiet --workspace --bins
	UNDERSTUDY_ROUNDS=1000 $(CARGO) test --locked --package understudy-tests --test t3_csi rounds:: -- --nocapture

soak: ## Two volumes under load and faults: MINUTES=n or ROUNDS=n, SEED=s FROM=n (as root)
	@$(CARGO) build --locked --quiet --workspace --bins
	@target/debug/understudy-tests soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
	  --seed $(SEED) --from $(FROM)

replay: ## Replay TRACE=FILE on two engines with disks of SIZE=MiB; compare the lines by diff
	@test -n "$(TRACE)" || { echo "Which trace? make replay TRACE=tests/traces/basic.trace SIZE=8"; exit 2; }
	@$(CARGO) build --locked --quiet --workspace --bins
	@target/debug/understudy-tests replay "$(TRACE)" --size $(SIZE)

trace: ## The same TRACE= and SIZE= on a pair of real QEMU processes
	@test -n "$(TRACE)" || { echo "Which trace? make trace TRACE=tests/traces/basic.trace SIZE=8"; exit 2; }
	@$(CARGO) build --locked --quiet --package understudy-tests
	@target/debug/understudy-tests qemu-trace "$(TRACE)" --size $(SIZE)

simulate: ## Play HISTORIES=n random histories with faults from SEED=n on, in the simulator
	@$(CARGO) build --locked --quiet --package understudy-tests
	@target/debug/understudy-tests simulate --seed $(SEED) --histories $(HISTORIES) --mix $(MIX)

syncpoints: ## Cut the power before and after every sync point, in RUNS=n worlds from SEED=n on
	UNDERSTUDY_SEED=$(SEED) UNDERSTUDY_CASES=$(RUNS) $(CARGO) test --locked --package understudy-tests --test t1_sync_points -- --nocapture

bugs: ## How many histories find each deliberate bug, at most HISTORIES=n from SEED=n on
	@$(CARGO) build --locked --quiet --package understudy-tests
	@target/debug/understudy-tests simulate --bugs --seed $(SEED) --histories $(HISTORIES)

fuzz: ## Fuzz TARGET=name, or every decoder, for SECONDS=n each, with libFuzzer
	@scripts/fuzz.sh $(SECONDS) $(TARGET)

bench: ## Against a real QEMU pair, qemu-nbd and nbdkit, interleaved in one run
	$(CARGO) build --locked --release --workspace --bins
	target/release/understudy-tests bench

fmt: ## Format the sources
	$(CARGO) fmt --all

lint: ## Clippy over everything, warnings denied
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

deny: ## Licences, banned packages, sources
	$(CARGO) deny --locked check bans licenses sources

advisories: ## Known vulnerabilities; needs the network
	$(CARGO) deny --locked check advisories
