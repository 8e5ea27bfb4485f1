# The two commands a newcomer needs are `make run` and `make test`.
.PHONY: build run check
build:
	cargo build --release
run: build
	./target/release/rookeeper run conf/zoo.cfg
check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
