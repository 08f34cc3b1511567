#!/usr/bin/env bash
# Makes, without any registry, the images that `just images` and `just images-smoke` stand on: file systems of
# Debian packages (unpacked, not installed) imported into the Docker engine.
#
#   offline.sh base        what a Windlass program needs: glibc, certificates, nothing to run
#   offline.sh builder     Debian's C toolchain and the Rust toolchain of this machine
#   offline.sh smoke       PostgreSQL, Redis, an S3 stand-in (moto) and an image for workspaces
#
# Unpacking needs no root and touches nothing of this machine; the packages are those of its own sources, so
# that the glibc is the one that programs compiled here were linked with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

state=$PWD/.windlass/images
MOTO=5.2.5
mkdir -p "$state/debs/partial"
exec 9>"$state/lock"
flock 9

say() { echo "images: $*" >&2; }
for command in apt-get dpkg-deb docker tar; do
    command -v "$command" >/dev/null && continue
    say "$command is missing: without it, build from a registry (docs/kubernetes.md)"
    exit 1
done

# An apt that believes nothing is installed, so that it names every dependency.
: >"$state/nothing-installed"
apt() {
    apt-get -qq -o Dir::State::status="$state/nothing-installed" -o Dir::Cache::archives="$state/debs" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o Debug::NoLocking=1 -o APT::Install-Recommends=0 -o APT::Sandbox::User= "$@"
}

# unpack FOLDER PACKAGE...
unpack() {
    local into=$1 dir
    shift
    rm -rf "$into"
    mkdir -p "$into"/{usr/{bin,sbin,lib,lib64},etc,proc,sys,dev,var/tmp,run} "$into/tmp"
    chmod 1777 "$into/tmp" "$into/var/tmp"
    for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$into/$dir"; done
    apt --yes --download-only install "$@" >/dev/null
    local uris
    uris=$(apt --yes --print-uris install "$@")
    # apt prints nothing for what it has fetched; the plan names versions in either case.
    apt --yes --simulate install "$@" | sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*\[\([a-z0-9]*\)\]).*/\1 \2 \3/p' |
        while read -r name version architecture; do
            dpkg-deb --fsys-tarfile "$state/debs/${name}_${version//:/%3a}_$architecture.deb" |
                tar -x --keep-directory-symlink --no-same-owner -C "$into"
        done
    rm -rf "$into"/usr/share/{doc,man,info,locale,lintian,bug,pixmaps}
    # Package scripts did not run; this is what matters of them.
    cat >"$into/etc/passwd" <<'P'
root:x:0:0:root:/root:/usr/sbin/nologin
nonroot:x:65532:65532:nonroot:/nonexistent:/usr/sbin/nologin
P
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$into/etc/group"
    printf 'hosts: files dns\n' >"$into/etc/nsswitch.conf"
    if [ -d "$into/usr/share/ca-certificates/mozilla" ]; then
        mkdir -p "$into/etc/ssl/certs"
        cat "$into"/usr/share/ca-certificates/mozilla/*.crt >"$into/etc/ssl/certs/ca-certificates.crt"
    fi
    if [ -e "$into/usr/bin/dash" ]; then ln -sf dash "$into/usr/bin/sh"; fi
    mkdir -p "$into/etc"
    PATH=$PATH:/usr/sbin:/sbin ldconfig -r "$into" 2>/dev/null || true
}

# import FOLDER IMAGE CHANGE...
import() {
    local from=$1 image=$2 changes=() change
    shift 2
    # Otherwise the image of an earlier version of this script stays without a name.
    docker image rm "$image" "${image/-root:/:}" >/dev/null 2>&1 || true
    for change in "LABEL dev.windlass.offline=1" "$@"; do changes+=(--change "$change"); done
    tar -c --numeric-owner --owner=0 --group=0 -C "$from" . | docker import "${changes[@]}" - "$image" >/dev/null
    say "$image"
}

# made IMAGE RECIPE: whether the image is there as this version of the script makes it
made() { [ "$(docker image inspect --format '{{index .Config.Labels "dev.windlass.recipe"}}' "$1" 2>/dev/null)" = "$2" ]; }

recipe=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)

base() {
    made windlass-offline/base:1 "$recipe" && return
    unpack "$state/root-base" libc6 libgcc-s1 ca-certificates
    # ca-certificates brings openssl, and openssl what it needs; programs here bring their own TLS.
    local keep=$state/root-base-small
    rm -rf "$keep"
    mkdir -p "$keep/usr/lib" "$keep/etc/ssl"
    (cd "$state/root-base" && tar -c --exclude='*/gconv' bin sbin lib lib64 usr/lib64 etc/{passwd,group,nsswitch.conf,ssl/certs} \
        tmp var/tmp run proc sys dev \
        $(find usr/lib -name 'ld-linux*' -o -name 'libc.so*' -o -name 'libm.so*' -o -name 'libgcc_s.so*' \
            -o -name 'libpthread.so*' -o -name 'libdl.so*' -o -name 'librt.so*' -o -name 'libnss_*' -o -name 'libresolv.so*')) |
        tar -x -C "$keep"
    mkdir -p "$keep/usr/bin" "$keep/usr/sbin"
    PATH=$PATH:/usr/sbin:/sbin ldconfig -r "$keep"
    import "$keep" windlass-offline/base:1 "USER 65532:65532" "LABEL dev.windlass.recipe=$recipe"
    rm -rf "$state"/root-base*
}

builder() {
    made windlass-offline/builder:1 "$recipe" && return
    local root=$state/root-builder
    unpack "$root" gcc g++ libc6-dev make perl-base dash coreutils findutils grep sed mawk tar ca-certificates
    mkdir -p "$root/usr/local"
    # Everything of the toolchain but its documentation and what editors want.
    tar -c --dereference --exclude=share/doc --exclude=share/man --exclude=lib/rustlib/src \
        -C "$(rustc --print sysroot)" bin lib | tar -x -C "$root/usr/local"
    # Crates are fetched as this machine does, so its authorities are trusted (here only, not in `base`).
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    ln -sf gcc "$root/usr/bin/cc"
    ln -sf mawk "$root/usr/bin/awk"
    import "$root" windlass-offline/builder:1 "ENV PATH=/usr/local/bin:/usr/bin:/bin HOME=/root CARGO_HOME=/cargo SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" \
        "LABEL dev.windlass.recipe=$recipe"
    rm -rf "$root"
}

postgres() {
    made windlass-offline/postgres:1 "$recipe" && return
    local root=$state/root-postgres
    unpack "$root" postgresql dash coreutils
    printf 'postgres:x:999:999::/var/lib/postgresql:/bin/sh\n' >>"$root/etc/passwd"
    printf 'postgres:x:999:\n' >>"$root/etc/group"
    cat >"$root/usr/bin/start" <<'S'
#!/bin/sh
# What the official image does with the same variables, and no more: a cluster on the first start.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" >/tmp/password
    initdb --pgdata="$PGDATA" --username=postgres --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 --locale=C
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE ${POSTGRES_DB};" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
S
    chmod 755 "$root/usr/bin/start"
    import "$root" windlass-offline/postgres-root:1
    printf '%s\n' "FROM windlass-offline/postgres-root:1" \
        "RUN mkdir -p /var/lib/postgresql/data && chown -R 999:999 /var/lib/postgresql && chmod 700 /var/lib/postgresql/data" \
        "USER 999:999" "ENV PGDATA=/var/lib/postgresql/data PATH=/usr/bin:/bin" \
        "LABEL dev.windlass.recipe=$recipe" 'CMD ["/usr/bin/start"]' |
        docker build -q -t windlass-offline/postgres:1 - >/dev/null 2>&1
    say windlass-offline/postgres:1
    rm -rf "$root"
}

redis() {
    made windlass-offline/redis:1 "$recipe" && return
    unpack "$state/root-redis" redis-server redis-tools
    import "$state/root-redis" windlass-offline/redis:1 "USER 65532:65532" "WORKDIR /tmp" \
        'CMD ["redis-server"]' "ENV PATH=/usr/bin:/bin" "LABEL dev.windlass.recipe=$recipe"
    rm -rf "$state/root-redis"
}

s3() {
    made windlass-offline/s3:1 "$recipe" && return
    local root=$state/root-s3 version
    unpack "$root" python3 ca-certificates
    version=$(basename "$(echo "$root"/usr/bin/python3.[0-9]*)")
    version=${version#python}
    [ -x "$state/venv/bin/pip" ] || python3 -m venv "$state/venv"
    "$state/venv/bin/pip" install -q --disable-pip-version-check --target "$root/usr/lib/moto" \
        --only-binary=:all: --implementation cp --python-version "$version" \
        --platform "manylinux2014_$(uname -m)" --platform "manylinux_2_28_$(uname -m)" --platform "manylinux_2_17_$(uname -m)" \
        "moto[server]==$MOTO" >&2
    cat >"$root/usr/bin/s3-stand-in" <<'S'
#!/usr/bin/python3
"""An S3 in memory with one bucket: enough for a smoke test, not for anybody's home."""
import os, signal, sys, urllib.request
sys.path.insert(0, "/usr/lib/moto")
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="0.0.0.0", port=9000, verbose=False)
server.start()
urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:9000/{os.environ['BUCKET']}", method="PUT"))
signal.sigwait({signal.SIGTERM, signal.SIGINT})
os._exit(0)
S
    chmod 755 "$root/usr/bin/s3-stand-in"
    import "$root" windlass-offline/s3:1 "USER 65532:65532" "ENV PYTHONUNBUFFERED=1 BUCKET=windlass" \
        'CMD ["/usr/bin/s3-stand-in"]' "LABEL dev.windlass.recipe=$recipe"
    rm -rf "$root"
}

workspace() {
    made windlass-offline/workspace:1 "$recipe" && return
    local root=$state/root-workspace applet
    unpack "$root" busybox-static
    # Static: what it depends on by package is not needed.
    rm -rf "$root"/usr/lib/* "$root"/usr/lib64/*
    for applet in $("$root/bin/busybox" --list); do [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"; done
    mkdir -p "$root/home/coder"
    printf 'coder:x:1000:1000::/home/coder:/bin/sh\n' >>"$root/etc/passwd"
    printf 'coder:x:1000:\n' >>"$root/etc/group"
    import "$root" windlass-offline/workspace-root:1
    printf '%s\n' "FROM windlass-offline/workspace-root:1" "RUN chown 1000:1000 /home/coder" "USER 1000:1000" \
        "WORKDIR /home/coder" "ENV HOME=/home/coder PATH=/bin" "LABEL dev.windlass.recipe=$recipe" \
        'CMD ["/bin/httpd","-f","-p","8080","-h","/home/coder"]' |
        docker build -q -t windlass-offline/workspace:1 - >/dev/null 2>&1
    say windlass-offline/workspace:1
    rm -rf "$root"
}

export DOCKER_BUILDKIT=0
case ${1:-} in
    base) base ;;
    builder) builder ;;
    smoke) postgres; redis; s3; workspace ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
