# The braid program on Debian. Two ways to it:
#
#   ./scripts/package                 from the package that it has just made, so that both are one build
#   docker build -t braid .           compiles here, with nothing but a container engine: about 20 minutes on two cores
#
# Needs BuildKit, which leaves out the stage that is not asked for.
ARG PROGRAM=compiled

FROM rust:1-bookworm AS compiled
WORKDIR /src
COPY . .
RUN bash -c 'source scripts/setup && cargo build --profile dist --locked --workspace --bin braid' && \
    install -D target/dist/braid /program/usr/bin/braid

FROM scratch AS packaged
COPY dist/image /program

FROM ${PROGRAM} AS program

FROM debian:bookworm-slim
RUN useradd --system --uid 7070 --home-dir /var/lib/braid --create-home braid
COPY --from=program /program /
USER braid
ENV BRAID_DATA_DIR=/var/lib/braid
VOLUME /var/lib/braid
# clients, other nodes, metrics
EXPOSE 7070 7071 7072
STOPSIGNAL SIGTERM
ENTRYPOINT ["braid"]
CMD ["node"]
