# The words CI uses are the words people use.
#   make demo    replay a small capture and look at the records (Rust and libpcap only)
#   make test    everything that can be tested on this machine
#   make check   format, lints, licences, documentation
#   make deb     a Debian package            make test-deb   install, run, upgrade, remove and purge it, and leave nothing
#   make test-kernels   live tests on other kernels, in virtual machines; long without KVM
#   make bench   speed against floors and peers        make fuzz   every parser, a minute each

SHELL := /bin/bash
CARGO ?= cargo
VENV := .venv
FUZZ_SECONDS ?= 60
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo setup test check deb test-deb test-kernels bench bench-peers fuzz clean

demo: | libpcap
	@echo 'Building flowtap: a few minutes the first time.'
	$(CARGO) build --release --package flowtap --no-default-features
	@packaging/demo

# libpcap's header is all that a replay needs beside Rust.
.PHONY: libpcap
libpcap:
	@packaging/setup libpcap

# Everything that building and testing use: Debian packages, a compiler for the kernel programs, and Python readers of
# our files in a virtual environment.
setup:
	@packaging/setup all

test: setup
	$(CARGO) build --workspace --all-targets
	$(CARGO) test --workspace
	$(CARGO) test --package flowtap-abi

check: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package flowtap --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	@packaging/check-licences

deb: | libpcap
	@packaging/deb/build

test-deb: | libpcap
	@packaging/deb/test

# For example `make test-kernels KERNELS=6.1`; `packaging/kernels/test` says which there are.
test-kernels: setup
	@packaging/setup kernels
	$(CARGO) build --package flowtap
	@packaging/kernels/test $(KERNELS)

bench: setup
	$(CARGO) build --release --package flowtap
	$(CARGO) bench --package flowtap --bench replay -- $(BENCH_ARGS)
	$(SUDO) "$$(packaging/built bench --package flowtap --bench kernel)" --bench
	$(SUDO) "$$(packaging/built bench --package flowtap --bench live)" --bench $(LIVE_ARGS)

bench-peers:
	@packaging/setup peers

fuzz:
	@packaging/fuzz $(FUZZ_SECONDS)

clean:
	$(CARGO) clean
	rm -rf $(VENV)
