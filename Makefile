# `make test` is what continuous integration runs; it needs Rust and nothing else.

.PHONY: test lint unit docs release bench image

test: lint unit docs release

lint:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- --deny warnings

unit:
	cargo test --locked --lib --bins --test it

docs:
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps --document-private-items

release:
	cargo build --locked --release

bench:
	cargo bench --locked --bench http

image:
	docker build --tag kms .
