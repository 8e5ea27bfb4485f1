# The two commands a newcomer needs are `make run` and `make test`.
.PHONY: build run check
build:
	cargo build --release
run: build
	./target/release/rookeeper run conf/zoo.cfg
check:
	cargo fmt --check
	cargo clippy --all-targets --features breakages -- -D warnings

# -- installation: `make build && sudo make install prefix=/usr`, with DESTDIR=... elsewhere, or as a Debian package.
# README.md says what comes next.
prefix ?= /usr/local
sysconfdir ?= /etc
BINARY ?= target/release/rookeeper
SCRIPT_NAMES = zkServer.sh zkCli.sh zkCleanup.sh zkTxnLogToolkit.sh zkSnapShotToolkit.sh zkSnapshotComparer.sh \
	zkSnapshotRecursiveSummaryToolkit.sh zkServer-initialize.sh
# zkEnv.sh also looks beside itself, where Apache's archive has an etc/zookeeper.
FOR_PREFIX = sed -e 's|/usr/|$(prefix)/|g' -e 's,/etc/\(rookeeper\|default\),$(sysconfdir)/\1,g'
# $(call fit,MODE,FROM,TO) installs a file with our paths in it; `>` alone would leave its mode to the umask.
fit = install -D -m $(1) $(2) $(3) && $(FOR_PREFIX) $(2) >$(3)
ROOT = $(DESTDIR)$(prefix)
UNITS = $(ROOT)/lib/systemd/system

.PHONY: install uninstall deb deploy built
# A binary that is given is taken as it is; ours is built. Not by sudo, whose root may have no cargo and would leave files of
# its own in target/: it only looks whether the last build is of these sources.
ifeq ($(origin BINARY)$(SUDO_USER),file)
install: build
else ifeq ($(origin BINARY),file)
install: built
endif
built:
	@[ -x $(BINARY) ] || { echo "there is no $(BINARY): run \`make build\` first, without sudo" >&2; exit 1; }
	@newer=$$(find src build.rs Cargo.toml -newer $(BINARY) | head -n 1); [ -z "$$newer" ] || \
	{ echo "$$newer is newer than $(BINARY): run \`make build\` first, without sudo" >&2; exit 1; }

# zookeeper.service, the name that scripts and monitoring ask for, is a link beside our unit. An Alias= in it would make
# `systemctl enable` fail on a host with a zookeeper.service of its own in /etc, which comes first and is the way back.
install:
	install -D -m 755 $(BINARY) $(ROOT)/bin/rookeeper
	install -D -m 755 bin/zk.sh $(ROOT)/share/zookeeper/bin/zk.sh
	$(call fit,644,bin/zkEnv.sh,$(ROOT)/share/zookeeper/bin/zkEnv.sh)
	for name in $(SCRIPT_NAMES); do \
	  ln -sfn zk.sh $(ROOT)/share/zookeeper/bin/$$name && \
	  ln -sfn ../share/zookeeper/bin/$$name $(ROOT)/bin/$$name || exit 1; \
	done
	$(call fit,755,scripts/tune-host,$(ROOT)/lib/rookeeper/tune-host)
	for unit in rookeeper.service rookeeper-tuning.service; do \
	  $(call fit,644,systemd/$$unit,$(UNITS)/$$unit) || exit 1; \
	done
	install -m 644 systemd/rookeeper.service $(UNITS)/rookeeper@.service
	sed -e 's|/etc/rookeeper/zoo.cfg|/etc/rookeeper/%i/zoo.cfg|' -e 's,^\(StateDirectory\|LogsDirectory\)=.*,&/%i,' \
	  -e 's|^Description=.*|& (%i)|' -e '1,2d' systemd/rookeeper.service \
	  | $(FOR_PREFIX) >$(UNITS)/rookeeper@.service
	[ -e $(UNITS)/zookeeper.service ] || ln -s rookeeper.service $(UNITS)/zookeeper.service
	install -D -m 644 systemd/rookeeper.sysusers $(ROOT)/lib/sysusers.d/rookeeper.conf
	$(call fit,644,systemd/rookeeper.tmpfiles,$(ROOT)/lib/tmpfiles.d/rookeeper.conf)
	install -D -m 644 conf/host.cfg $(ROOT)/share/rookeeper/zoo.cfg
	install -d $(DESTDIR)$(sysconfdir)/rookeeper
	[ -e $(DESTDIR)$(sysconfdir)/rookeeper/zoo.cfg ] || \
	  install -m 644 conf/host.cfg $(DESTDIR)$(sysconfdir)/rookeeper/zoo.cfg
	made=$$(mktemp -d) && $(BINARY) generate $$made && \
	  install -d $(ROOT)/share/man/man1 && install -m 644 $$made/man1/*.1 $(ROOT)/share/man/man1/ && \
	  install -D -m 644 $$made/bash/rookeeper.bash $(ROOT)/share/bash-completion/completions/rookeeper && \
	  install -D -m 644 $$made/zsh/_rookeeper $(ROOT)/share/zsh/site-functions/_rookeeper && \
	  install -D -m 644 $$made/fish/rookeeper.fish $(ROOT)/share/fish/vendor_completions.d/rookeeper.fish && \
	  rm -r $$made
	install -d $(ROOT)/share/doc/rookeeper
	install -m 644 README.md systemd/TUNING.md $(ROOT)/share/doc/rookeeper
	@[ -n "$(DESTDIR)" ] || echo "next, as root: systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload"

# What `install` put there, with the same prefix and DESTDIR, and nothing else.
uninstall:
	rm -f $(SCRIPT_NAMES:%=$(ROOT)/bin/%) $(SCRIPT_NAMES:%=$(ROOT)/share/zookeeper/bin/%)
	rm -f $(ROOT)/share/zookeeper/bin/zk.sh $(ROOT)/share/zookeeper/bin/zkEnv.sh $(ROOT)/bin/rookeeper
	rm -f $(ROOT)/lib/rookeeper/tune-host $(ROOT)/share/rookeeper/zoo.cfg
	rm -f $(ROOT)/share/doc/rookeeper/README.md $(ROOT)/share/doc/rookeeper/TUNING.md
	[ "$$(readlink $(UNITS)/zookeeper.service)" != rookeeper.service ] || rm $(UNITS)/zookeeper.service
	rm -f $(UNITS)/rookeeper.service $(UNITS)/rookeeper@.service $(UNITS)/rookeeper-tuning.service
	rm -f $(ROOT)/lib/sysusers.d/rookeeper.conf $(ROOT)/lib/tmpfiles.d/rookeeper.conf
	rm -f $(ROOT)/share/man/man1/rookeeper.1 $(ROOT)/share/man/man1/rookeeper-*.1
	rm -f $(ROOT)/share/bash-completion/completions/rookeeper $(ROOT)/share/zsh/site-functions/_rookeeper
	rm -f $(ROOT)/share/fish/vendor_completions.d/rookeeper.fish
	for folder in lib/rookeeper share/rookeeper share/doc/rookeeper share/zookeeper/bin share/zookeeper; do \
	  rmdir $(ROOT)/$$folder 2>/dev/null || true; \
	done
	@echo "kept: $(sysconfdir)/rookeeper, /var/lib/rookeeper and every other dataDir, /var/log/rookeeper, the user zookeeper"
	@[ -n "$(DESTDIR)" ] || echo "next, as root: systemctl daemon-reload"

deb: build
	scripts/deb $(BINARY) target/debian

# Three hosts, or as many: `make deploy HOSTS="h121 h122 h123"`. Again: a rolling upgrade. scripts/deploy --help says how.
# Without hosts it says so before anything is built.
deploy: $(if $(strip $(HOSTS)),deb)
	@scripts/deploy $(HOSTS)

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
# `SIMULATION_SEED=n cargo test --features breakages --test simulation one_seed -- --ignored --nocapture` shows its trace.
.PHONY: simulate
simulate:
	SIMULATION_SECONDS=1000000000 SIMULATION_FIRST=$${SIMULATION_FIRST:-$$(date +%s)0000} \
	cargo test --release --test simulation whatever_happens -- --nocapture

# Power cuts under a real kernel (root; tests/power_cuts/main.rs says how), each time other seeds: so many seconds, an hour
# unless told otherwise. A seed that fails says so, and `make power-cuts POWER_CUTS_SEED=n` runs it again.
.PHONY: power-cuts
power-cuts: export POWER_CUTS_SECONDS ?= 3600
power-cuts: test-deps
	cargo test --release --test power_cuts -- --nocapture

# Mutates a file, and runs the tests that see most of it, for so long: docs/mutants.md has what was found, and why it stands.
.PHONY: mutants
FILE ?= src/storage/writer.rs
MINUTES ?= 30
mutants:
	scripts/mutants $(FILE) $(MINUTES) $(ARGS)

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
