# Every recipe of the project. `./dev <recipe>` installs what is missing first.

set positional-arguments

import 'k8s/recipes.just'

export PATH := justfile_directory() / ".windlass/tools/bin:" + env("PATH") + ":/usr/sbin:/sbin"
export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# List the recipes
help:
    @just --list --unsorted

# Build every binary in the dev profile
build:
    cargo build --workspace --bins

# The whole system on loopback; arguments go to `windlass up`
up *args: build
    exec "$CARGO_TARGET_DIR/debug/windlass" up "$@"

# Every check and every test
test: fmt-check buf lint deny build k8s-check
    just with-engine cargo nextest run --workspace
    cargo nextest run --workspace --features windlass-archive/failpoints --test crash_matrix

# Some tests: arguments go to nextest, such as `-p windlass-domain` or `-E 'test(archive)'`
nextest *args: build
    just with-engine cargo nextest run "$@"

# A benchmark against its floor in the same run: observe, control, scale or archive (`--quick` to try it)
bench name *args: (bench-build name)
    #!/usr/bin/env bash
    set -euo pipefail
    run=(cargo bench --quiet --profile bench --workspace --bench {{ name }} -- "${@:2}")
    case {{ name }} in
        observe | control) just with-engine "${run[@]}" ;;
        *) "${run[@]}" ;;
    esac

# Build a benchmark and the services it measures, optimised, with the same features
bench-build name:
    cargo build --profile bench --workspace --bins --bench {{ name }}

# Put the tables of target/bench into docs/performance.md
bench-docs:
    #!/usr/bin/env bash
    set -euo pipefail
    for table in "$CARGO_TARGET_DIR"/bench/*.md; do
        name=$(basename "$table" .md)
        awk -v name="$name" -v table="$table" '
            $0 == "<!-- /bench:" name " -->" { inside = 0 }
            !inside { print }
            $0 == "<!-- bench:" name " -->" {
                inside = 1
                print ""
                while ((getline line < table) > 0) print line
            }' docs/performance.md >docs/performance.md.new
        mv docs/performance.md.new docs/performance.md
    done

# Fuzz what reads archives, for so many seconds: tar, unpack, marker or layout; finds go to target/fuzz/found
fuzz target seconds="60":
    #!/usr/bin/env bash
    set -euo pipefail
    # What cargo-fuzz passes, but for the address sanitizer, which alone needs a nightly compiler.
    coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
    coverage+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    coverage+=" -Cllvm-args=-sanitizer-coverage-pc-table"
    export RUSTFLAGS="--cfg fuzzing $coverage -Cdebug-assertions"
    export CARGO_TARGET_DIR=$CARGO_TARGET_DIR/fuzz
    # With a target named, build scripts and macros go without these flags.
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo build --manifest-path crates/archive/fuzz/Cargo.toml --bin "$1" --target "$host"
    found=$CARGO_TARGET_DIR/found/$1
    mkdir -p "$found/corpus"
    exec "$CARGO_TARGET_DIR/$host/debug/$1" -max_total_time="$2" -artifact_prefix="$found/" \
        "$found/corpus" "crates/archive/fuzz/corpus/$1"

# The archive store's tests over Garage, a third S3 server, which is built first (a quarter of an hour)
garage:
    #!/usr/bin/env bash
    set -euo pipefail
    [ -x .windlass/tools/bin/garage ] || CARGO_TARGET_DIR=$CARGO_TARGET_DIR/garage cargo install garage \
        --version 2.5.0 --locked --no-default-features --features bundled-libs,sqlite --root .windlass/tools
    cargo nextest run -p windlass-integration --features windlass-integration/garage --test archive_store garage

# Format the Rust sources
fmt:
    cargo fmt --all

# Fail if anything is not formatted
fmt-check:
    cargo fmt --all --check

# Clippy, warnings as errors
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Lint the contracts, and compare them with those of the last release: what clients rely on may not break
buf:
    buf lint
    buf breaking --against proto/released.binpb

# Take the present contracts and migrations for released: what `buf` and crates/db's tests compare with
mark-released:
    buf build --exclude-source-info -o proto/released.binpb
    cd crates/db/migrations && sha256sum */up.sql >../migrations.released

# Licenses, sources, and who may depend on whom (deny.toml)
deny:
    cargo-deny --workspace --log-level error check --hide-inclusion-graph bans licenses sources

# Run a command with a Docker engine: the one that answers, else a private one while the command runs
with-engine +command:
    #!/usr/bin/env bash
    set -euo pipefail
    answers() { [ "$(curl -sf --max-time 5 --unix-socket "$1" http://engine/_ping)" = OK ]; }
    if [ -n "${DOCKER_HOST:-}" ] || answers /var/run/docker.sock; then exec "$@"; fi

    # Sockets have short paths only, so they live in /tmp; images stay in .windlass for the next time.
    id=$(printf %s "$PWD" | cksum | cut -d' ' -f1)
    run=/tmp/windlass-engine-$(id -u)-$id
    state=$PWD/.windlass/engine
    export DOCKER_HOST=unix://$run/docker.sock
    if answers "$run/docker.sock"; then exec "$@"; fi

    root=(); [ "$(id -u)" = 0 ] || root=(sudo)
    pid=
    bridge=wl$((id % 100000))
    # An engine that was killed leaves mounts behind, and what is mounted cannot be removed.
    remove_run() {
        awk -v run="$run/" 'index($5, run) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
            "${root[@]}" xargs -r umount -l
        "${root[@]}" rm -rf "$run"
    }
    finish() {
        # One that does not stop is told again: at the third time it ends without tidying up.
        for tenth in $(seq 0 399); do
            [ -n "$pid" ] && "${root[@]}" kill -0 "$pid" 2>/dev/null || break
            [ $((tenth % 100)) != 0 ] || "${root[@]}" kill "$pid" 2>/dev/null || true
            sleep 0.1
        done
        "${root[@]}" ip link del "$bridge" 2>/dev/null || true
        remove_run
    }
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mkdir -p "$state"
    remove_run
    mkdir -m 700 "$run"

    # A bridge of its own keeps its containers' addresses apart from those of any other engine.
    net=()
    if command -v ip >/dev/null && "${root[@]}" ip link add "$bridge" type bridge 2>/dev/null; then
        "${root[@]}" ip addr add "10.$((id % 100 + 100)).$((id / 100 % 256)).1/24" dev "$bridge"
        net=(--bridge "$bridge")
    fi
    start() {
        "${root[@]}" setsid dockerd --data-root "$state/data" --exec-root "$run/exec" \
            --pidfile "$run/dockerd.pid" --group "$(id -g)" --host "$DOCKER_HOST" \
            "${net[@]}" "$@" >"$state/dockerd.log" 2>&1 &
        local starter=$!
        for _ in $(seq 300); do
            pid=$("${root[@]}" cat "$run/dockerd.pid" 2>/dev/null || true)
            answers "$run/docker.sock" && return 0
            kill -0 "$starter" 2>/dev/null || { pid=; return 1; }
            sleep 0.1
        done
        return 1
    }
    if ! start && ! start --iptables=false --ip6tables=false; then
        echo "no Docker engine: the private one did not start, see .windlass/engine/dockerd.log" >&2
        tail -n 5 "$state/dockerd.log" >&2
        exit 1
    fi
    "$@"
