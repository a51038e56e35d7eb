# Shared by the scripts: what a fresh Debian 12 lacks, and the virtual environment. Sourced, not run.
set -eu

LBHA_ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$LBHA_ROOT"

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

need_root() {
    if [ "$(id -u)" != 0 ]; then
        echo "$0: needs root: network namespaces and Debian packages; run it with sudo" >&2
        exit 1
    fi
}

# install_packages PACKAGE…: those that are missing, from Debian. Their services are not started: the lab
# runs its own engines in namespaces, and the host's must not hold ports or a VIP.
install_packages() {
    missing=''
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    policy=/usr/sbin/policy-rc.d
    made_policy=''
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made_policy=1
    fi
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of package names
    { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >/tmp/lbha-apt.log 2>&1 ||
        { [ -z "$made_policy" ] || rm -f "$policy"; tail -n 20 /tmp/lbha-apt.log >&2; exit 1; }
    [ -z "$made_policy" ] || rm -f "$policy"
}

# install_lbha EXTRAS: an editable lbha in .venv, made once and again whenever pyproject.toml changes.
install_lbha() {
    stamp=.venv/.lbha-$1
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        say "installing lbha[$1] into .venv"
        [ -x .venv/bin/python ] || python3 -m venv .venv
        .venv/bin/python -m pip install -q --disable-pip-version-check -e ".[$1]"
        touch "$stamp"
    fi
    PATH="$LBHA_ROOT/.venv/bin:$PATH"
    export PATH
}

# The engines, and what the lab builds its network and breaks it with.
ENGINES='haproxy keepalived etcd-server etcd-client iproute2 nftables util-linux curl'
