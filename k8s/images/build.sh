#!/usr/bin/env bash
# build.sh PROFILE [inside]: every image, from programs compiled on this machine or inside the Dockerfile, on a
# base made of Debian packages. Where a registry is reachable, `docker build` needs no script (see there).
#
# TAG names the version, 0.1.0 by default; BASE_IMAGE stands in for the base made here, and PROGRAMS, a folder
# of programs that are there already, for compiling them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

profile=${1:-release}
tag=${TAG:-0.1.0}
programs=(api agent observer wc ttl gc migrate cli)
context=$PWD/.windlass/images/programs
rm -rf "$context"
mkdir -p "$context"
log=$PWD/.windlass/images/build.log
export DOCKER_BUILDKIT=0
base=${BASE_IMAGE:-windlass-offline/base:1}
if [ -z "${BASE_IMAGE:-}" ]; then k8s/images/offline.sh base; fi

if [ "${2:-}" = inside ]; then
    builder=${BUILDER_IMAGE:-windlass-offline/builder:1}
    if [ -z "${BUILDER_IMAGE:-}" ]; then k8s/images/offline.sh builder; fi
    context=$PWD
    # The host's network: cargo needs a registry, and a private engine may have no way out.
    how=(--network host --build-arg BUILDER_IMAGE="$builder" --build-arg PROFILE="$profile")
elif [ -n "${PROGRAMS:-}" ]; then
    built=$PROGRAMS how=(--target prebuilt)
else
    built=${CARGO_TARGET_DIR:-$PWD/target}/${profile/#dev/debug} how=(--target prebuilt)
    cargo build --locked --workspace --bins --profile "$profile"
fi

for program in "${programs[@]}"; do
    binary=windlass-$program user=65532:65532
    case $program in
        cli) binary=windlass ;;
        agent) user=0:0 ;;
    esac
    if [ -n "${built:-}" ]; then
        # Function names stay in backtraces; what a debugger wants does not.
        strip --strip-debug -o "$context/windlass" "$built/$binary"
    fi
    docker build --quiet --file Dockerfile "${how[@]}" --tag "windlass/$program:$tag" \
        --build-arg BASE_IMAGE="$base" --build-arg BINARY="$binary" --build-arg RUN_AS="$user" \
        --label org.opencontainers.image.title="windlass-$program" \
        --label org.opencontainers.image.version="$tag" \
        "$context" >/dev/null 2>"$log" || { cat "$log" >&2; exit 1; }
    docker image inspect --format "images: {{index .RepoTags 0}} {{.Size}} bytes, user {{.Config.User}}" \
        "windlass/$program:$tag" >&2
done
