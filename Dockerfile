# One image: the braid program. Not built or run by CI; `./scripts/test` and `./scripts/demo` are what is proven.
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make libclang-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# RocksDB takes about 15 minutes on two cores; the cache mount keeps it between builds.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --workspace --bin braid && cp target/release/braid /braid

FROM debian:bookworm-slim
RUN useradd --system --home-dir /var/lib/braid --create-home braid
COPY --from=build /braid /usr/local/bin/braid
USER braid
ENV BRAID_DATA_DIR=/var/lib/braid
VOLUME /var/lib/braid
# clients, other nodes, metrics
EXPOSE 7070 7071 7072
STOPSIGNAL SIGTERM
ENTRYPOINT ["braid"]
CMD ["node"]
