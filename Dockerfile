# syntax=docker/dockerfile:1

# The service in an image with no shell and no package manager, run by a number.
# Build:  docker build --tag kms .
# Try it: docker run --rm --read-only --publish 127.0.0.1:8002:8002 \
#           --env KMS__SERVER__LISTEN=0.0.0.0:8002 --volume kms-data:/var/lib/kms kms

FROM rust:1.95-bookworm AS build
WORKDIR /build
# The dependencies first, against an empty program, so that a change of the
# sources does not build them again. What Cargo.lock names is fetched, and
# nothing else from here on.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src benches/performance tests/it \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs benches/performance/main.rs tests/it/main.rs \
    && cargo fetch --locked \
    && cargo build --frozen --release \
    && rm -r src
COPY config config
COPY src src
# The sources are older than the empty program that was just built.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --frozen --release \
    && install -D --mode 0755 target/release/kms /out/usr/local/bin/kms \
    && install -d --mode 0700 --owner 65532 --group 65532 /out/var/lib/kms

# The C library and nothing else: PKCS#11 modules are shared libraries of glibc that are
# loaded while running, which a static program could not do.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/usr/local/bin/kms /usr/local/bin/kms
COPY --from=build --chown=65532:65532 /out/var/lib/kms /var/lib/kms
COPY config /etc/kms
USER 65532:65532
# The root file system can be read-only: everything that is written goes here, into the
# folder `data` by default. No setting is a variable of the image: it would count more
# than the files that are mounted.
WORKDIR /var/lib/kms
VOLUME ["/var/lib/kms"]
EXPOSE 8002 9002
STOPSIGNAL SIGTERM
# Whether it lives, and not whether its HSM does: who starts a service again because its
# token is away only makes the token count wrong PINs.
HEALTHCHECK --interval=10s --timeout=4s --start-period=120s --retries=3 \
    CMD ["/usr/local/bin/kms", "--config", "/etc/kms", "health", "--live"]
ENTRYPOINT ["/usr/local/bin/kms", "--config", "/etc/kms"]
CMD ["serve"]
