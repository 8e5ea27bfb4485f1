# The two commands a newcomer needs are `make run` and `make test`.
.PHONY: build run check
build:
	cargo build --release
run: build
	./target/release/rookeeper run conf/zoo.cfg
check:
	cargo fmt --check
	cargo clippy --all-targets --features breakages -- -D warnings

# -- tests: the unit tests of the crate, then real clients against the built server
.PHONY: test test-deps test-clients
test: test-deps build
	SIMULATION_SECONDS=180 cargo test -q --features breakages
	@if [ -x .venv/bin/pytest ]; then .venv/bin/pytest -q tests/clients; \
	else echo "left out: every test with a client (no .venv)"; fi
	fuzz/run.sh 10

# Installs what the tests need (as root on Debian), or says what is missing.
test-deps:
	tests/setup.sh

# The simulated ensemble for as long as it takes, each time other seeds: stop it with Ctrl-C. A seed that fails says so;
# `SIMULATION_SEED=n cargo test --test simulation one_seed -- --nocapture` shows its trace.
.PHONY: simulate
simulate:
	SIMULATION_SECONDS=1000000000 SIMULATION_FIRST=$${SIMULATION_FIRST:-$$(date +%s)0000} \
	cargo test --release --test simulation whatever_happens -- --nocapture

# The client tests alone: `make test-clients ARGS='--server=apache -k watches'`.
test-clients: test-deps
	.venv/bin/pytest -q tests/clients $(ARGS)

# kazoo's own suite alone, against ensembles of ours (or of Apache's: `make test-kazoo ARGS=--server=apache`).
.PHONY: test-kazoo
test-kazoo: test-deps build
	.venv/bin/pytest -q tests/clients/test_kazoo_suite.py $(ARGS)

# Coverage-guided fuzzing: a look at each target, as part of the tests; and for as long as it takes, one after another
# (`make fuzz SECONDS=600 TARGETS=pipeline`).
.PHONY: fuzz fuzz-short
SECONDS ?= 3600
fuzz-short: test-deps
	fuzz/run.sh 10
fuzz: test-deps
	fuzz/run.sh $(SECONDS) $(TARGETS)
