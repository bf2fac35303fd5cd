# `make test` is what continuous integration runs. It needs Rust; the other
# programs it installs where they are missing (Debian, as root).

.PHONY: test tools lint unit docs release instructions bench soak growth crash image

test: tools lint unit docs release instructions

# What the tests speak to the service with, as an outsider would, and the token that
# stands for a hardware HSM: SoftHSM, by itself and behind a proxy that can be killed.
# And what counts instructions.
PROGRAMS = curl openssl softhsm2-util pkcs11-tool p11-kit valgrind script
PACKAGES = curl openssl softhsm2 opensc p11-kit p11-kit-modules valgrind bsdutils
tools:
	@for program in $(PROGRAMS); do \
	  command -v $$program >/dev/null || { missing=$$program; break; }; \
	done; \
	test -e /usr/lib/$$(uname -m)-linux-gnu/pkcs11/p11-kit-client.so || missing=p11-kit-client.so; \
	test -z "$$missing" || { \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $(PACKAGES); \
	}

lint:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- --deny warnings

unit:
	cargo test --locked --lib --bins --test it

docs:
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps --document-private-items

release:
	cargo build --locked --release

# How many instructions each operation takes, held to benches/instructions.txt.
instructions:
	cargo bench --locked --bench performance -- instructions

# What the service costs beside what it costs at least, into docs/performance.
# `make bench ONLY=sign` measures some lines and only prints them.
bench:
	KMS_BENCH_ONLY='$(ONLY)' cargo bench --locked --bench performance

# The mixed load of the budgets for half an hour, or for MINUTES.
MINUTES ?= 30
soak:
	KMS_BENCH_MINUTES=$(MINUTES) cargo bench --locked --bench performance -- soak

# A store of 100,000 keys, or of KEYS, beside a fresh one.
KEYS ?= 100000
growth:
	KMS_BENCH_KEYS=$(KEYS) cargo bench --locked --bench performance -- growth

# Kills the service so many times under load, and holds it to what it acknowledged.
# A failure names its seed: `make crash ROUNDS=300 SEED=…` makes the same choices.
# With `PROFILE=--release` it crashes in faster code.
ROUNDS ?= 100
crash:
	KMS_CRASH_ROUNDS=$(ROUNDS) $(if $(SEED),KMS_CRASH_SEED=$(SEED)) \
	  cargo test --locked $(PROFILE) --test it crash:: -- --nocapture

image:
	docker build --tag kms .
