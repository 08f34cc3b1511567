#!/usr/bin/env bash
# Validates the manifests: installs what is missing below .windlass/tools, then runs the tests of this folder.
# It fails where it cannot check; it never skips.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools=$PWD/.windlass/tools
here=k8s/tests
say() { echo "k8s-check: $*" >&2; }

# kubectl has a kustomize inside; before version 5 it knows neither components nor labels as we use them.
kubectl_kustomizes() {
    kubectl version --client --output json 2>/dev/null | grep -q '"kustomizeVersion": *"v\([5-9]\|[1-9][0-9]\)\.'
}

# Debian's own kustomize needs nothing but a C library, so that of a newer Debian runs on an older one.
kustomize_from_debian() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    say "installing kustomize from Debian"
    local dir=$tools/kustomize
    rm -rf "$dir"
    mkdir -p "$dir"/{lists,archives}/partial "$tools/bin"
    : >"$dir/status"
    echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main' \
        >"$dir/sources.list"
    local apt=(
        apt-get -qq -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$dir/lists" -o Dir::State::status="$dir/status"
        -o Dir::Cache::archives="$dir/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o APT::Sandbox::User= -o Debug::NoLocking=1
    )
    "${apt[@]}" update && (cd "$dir" && "${apt[@]}" download kustomize) || return 1
    dpkg-deb -x "$dir"/kustomize_*.deb "$dir/root" || return 1
    mv "$dir/root/usr/bin/kustomize" "$tools/bin/kustomize"
    rm -rf "$dir"
}

# promtool alone, out of Debian's package (19 MB): nothing is installed, and no Prometheus is started.
promtool_from_debian() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    say "taking promtool from Debian's prometheus"
    local dir=$tools/prometheus
    rm -rf "$dir"
    mkdir -p "$dir" "$tools/bin"
    (cd "$dir" && { apt-get -qq -o APT::Sandbox::User= download prometheus || {
        { [ "$(id -u)" = 0 ] || return 1; } && apt-get -qq update &&
            apt-get -qq -o APT::Sandbox::User= download prometheus
    }; }) || return 1
    dpkg-deb --fsys-tarfile "$dir"/prometheus_*.deb | tar -x -C "$dir" ./usr/bin/promtool || return 1
    mv "$dir/usr/bin/promtool" "$tools/bin/promtool"
    rm -rf "$dir"
}

if kubectl_kustomizes; then
    export KUSTOMIZE="kubectl kustomize"
else
    export PATH=$tools/bin:$PATH
    command -v kustomize >/dev/null || kustomize_from_debian || {
        say "kustomize 5 is missing, and not installable here (no apt-get, or no Debian mirror)"
        exit 1
    }
    export KUSTOMIZE="kustomize build"
fi

PATH=$PATH:$tools/bin
command -v promtool >/dev/null || promtool_from_debian || {
    say "promtool is missing, and not installable here (Debian's package prometheus has it)"
    exit 1
}

venv=$tools/k8s
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    say "installing what $here/requirements.txt lists from PyPI"
    rm -rf "$venv"
    python3 -m venv "$venv" || { say "Python's venv is missing (Debian: python3-venv)"; exit 1; }
    "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$venv/installed.txt"
fi

export WINDLASS_PROGRAMS=${WINDLASS_PROGRAMS:-${CARGO_TARGET_DIR:-$PWD/target}/debug}
exec "$venv/bin/python" -m unittest discover -b -s "$here" "$@"
