# syntax=docker/dockerfile:1.7
# The host and its plugins. Build it in the root of this repository:
#
#   docker build --tag memcell .
#
# Dependencies are compiled once and kept in the builder's cache, between builds and whatever changes in the sources.

FROM rust:1.95-slim-bookworm AS build
# The remote plugin has cryptography in C, which is compiled for WebAssembly.
RUN apt-get update \
    && apt-get install -y --no-install-recommends clang llvm pkg-config \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add wasm32-wasip2
WORKDIR /source
COPY . .
ENV CARGO_TARGET_DIR=/cache/target MEMCELL_COMPONENTS=/out
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/cache/target,sharing=locked \
    cargo xtask plugins \
    && cargo build --locked --profile dist -p memcell-host --bin memcell \
    && install -D -m 0755 /cache/target/dist/memcell /out/bin/memcell

# Glibc, certificates, and a shell: the entry point of ops/compose.yaml puts passwords together with it.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 memcell \
    && useradd --uid 10001 --gid memcell --no-create-home --home-dir /var/lib/memcell --shell /usr/sbin/nologin memcell \
    && install -d -o memcell -g memcell -m 0750 /var/lib/memcell /var/cache/memcell
COPY --from=build /out/bin/memcell /usr/local/bin/memcell
COPY --from=build /out/plugins/ /usr/local/lib/memcell/plugins/
COPY LICENSE /usr/share/doc/memcell/LICENSE
# Where compiled plugins are kept: in memcell/compiled below it.
ENV XDG_CACHE_HOME=/var/cache \
    MEMCELL_CONFIG=/etc/memcell/memcell.toml
USER 10001:10001
WORKDIR /var/lib/memcell
VOLUME ["/var/lib/memcell", "/var/cache/memcell"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# Whether the process answers; whether MongoDB does is /readyz, and no reason to start the container anew. With TLS or another
# port, give a check of your own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.1 200' <&3"]
ENTRYPOINT ["/usr/local/bin/memcell"]
CMD ["serve"]
