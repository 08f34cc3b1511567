# One image of one Windlass program:
#
#   docker build --build-arg BINARY=windlass-api -t windlass/api:0.1.0 .
#   docker build --build-arg BINARY=windlass-agent --build-arg RUN_AS=0:0 -t windlass/agent:0.1.0 .
#
# The layers up to the compiled programs are the same for all of them, so they are built once. Both images it
# stands on are arguments: where no registry is reachable, `just images` makes a base of Debian packages and
# builds the target `prebuilt` from programs compiled outside. The classic builder is enough (no BuildKit).
#
# The agent runs as root (RUN_AS=0:0): it keeps owners, modes and devices of other people's homes in the
# engine's volumes folder. Everything else runs as nobody in particular.

ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot
ARG BUILDER_IMAGE=rust:1.95-slim-bookworm

# A program that is there already: the context is a folder with nothing but it, named `windlass`. The stage stands
# first since the classic builder makes every stage before its target; so it is also made of the sources,
# and thrown away, when everything is compiled below.
FROM ${BASE_IMAGE} AS prebuilt
ARG RUN_AS=65532:65532
COPY . /usr/bin/
USER ${RUN_AS}
ENTRYPOINT ["/usr/bin/windlass"]

# Only what decides which dependencies are built: the manifests, with an empty source for each target, and
# without tests, benches and examples that they declare by name. The next stage copies the outcome, so its
# layer is used again as long as no manifest changes.
FROM ${BUILDER_IMAGE} AS manifests
WORKDIR /src
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock -delete \
    && for manifest in Cargo.toml crates/*/Cargo.toml services/*/Cargo.toml integration/Cargo.toml; do \
        awk '/^\[/ { drop = /^\[\[(test|bench|example)\]\]/ } !drop' "$manifest" > /tmp/manifest \
        && cp /tmp/manifest "$manifest"; \
        dir=$(dirname "$manifest")/src; \
        if [ "$dir" = ./src ]; then continue; fi; \
        mkdir -p "$dir" && : > "$dir/lib.rs"; \
        case "$manifest" in services/*) echo 'fn main() {}' > "$dir/main.rs" ;; esac; \
    done \
    && mkdir -p proto && : > proto/lib.rs && echo 'fn main() {}' > build.rs \
    && find . -type d -empty -delete

FROM ${BUILDER_IMAGE} AS compile
WORKDIR /src
# release, or dev for a quick try.
ARG PROFILE=release
# Function names stay in backtraces; what a debugger wants does not.
ENV CARGO_TARGET_DIR=/target CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0
COPY --from=manifests /src .
RUN cargo build --locked --workspace --bins --profile "$PROFILE"
COPY . .
# A copied file keeps its old date, and cargo goes by dates.
RUN find . -type f -exec touch {} + \
    && cargo build --locked --workspace --bins --profile "$PROFILE" \
    && mkdir /programs \
    && find /target/*/ -maxdepth 1 -type f -name 'windlass*' -perm -100 -exec cp {} /programs/ \;

FROM ${BASE_IMAGE}
ARG BINARY
ARG RUN_AS=65532:65532
COPY --from=compile /programs/${BINARY} /usr/bin/windlass
USER ${RUN_AS}
ENTRYPOINT ["/usr/bin/windlass"]
