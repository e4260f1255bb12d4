#!/usr/bin/env bash
# Makes sure that the tools of a make target are there: scripts/setup.sh demo|test|bench|ui
#
# As root on Debian it installs what is missing; elsewhere it says in one line what is missing and how to
# get it. Nothing is written outside target/ and the node_modules of the test clients and the dashboard. A second run does nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly RUST_MINIMUM=1.95 NODE_MINIMUM=20 PYTHON_MINIMUM=3.11
readonly CLIENTS=crates/cli/tests/clients RECEIVERS=crates/cli/tests/receivers SCHEMA=crates/cli/tests/schema
readonly IDENTITY=crates/cli/tests/oidc

at_least() { # at_least MINIMUM ACTUAL
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

have_cargo() {
    local version
    version=$(cargo --version 2>/dev/null) && at_least "$RUST_MINIMUM" "$(cut -d ' ' -f 2 <<<"$version")"
}
have_cc() { command -v cc >/dev/null; }
have_python() {
    local version
    version=$(python3 -c 'import ensurepip, platform, venv; print(platform.python_version())' 2>/dev/null) &&
        at_least "$PYTHON_MINIMUM" "$version"
}
have_node() {
    local version
    version=$(node --version 2>/dev/null) && at_least "$NODE_MINIMUM" "${version#v}"
}
have_chromium() { [ -x /usr/bin/chromium ] || [ -x "${CHROMIUM:-}" ]; }
have_npm() { command -v npm >/dev/null; }
# Debian keeps nginx in sbin, which is not on everyone's path.
have_nginx() { PATH="$PATH:/usr/sbin" command -v nginx >/dev/null; }

have_alertmanager() { command -v prometheus-alertmanager >/dev/null; }

# What each tool is called for people, and in which Debian packages it comes (none: not there, or too old).
describe() {
    case $1 in
        cargo) echo "Rust $RUST_MINIMUM or later (https://rustup.rs)" ;;
        cc) echo "a C compiler (apt install gcc libc6-dev)" ;;
        python) echo "Python $PYTHON_MINIMUM or later with venv (apt install python3-venv)" ;;
        node) echo "Node.js $NODE_MINIMUM or later (https://nodejs.org)" ;;
        npm) echo "npm (apt install npm, or with Node.js)" ;;
        chromium) echo "Chromium (apt install chromium, or its path in CHROMIUM)" ;;
        nginx) echo "nginx (apt install nginx)" ;;
        alertmanager) echo "Alertmanager as prometheus-alertmanager (apt install prometheus-alertmanager)" ;;
    esac
}
packages() {
    case $1 in
        cargo) ;;
        cc) echo gcc libc6-dev ;;
        python) echo python3 python3-venv ;;
        node) echo nodejs ;;
        npm) echo npm ;;
        chromium) echo chromium ;;
        nginx) echo nginx ;;
        alertmanager) echo prometheus-alertmanager ;;
    esac
}

missing_of() {
    local tool
    for tool in "$@"; do
        "have_$tool" || echo "$tool"
    done
}

require() {
    local missing tool wanted=()
    missing=$(missing_of "$@")
    [ -n "$missing" ] || return 0

    if [ "$(id -u)" = 0 ] && [ -f /etc/debian_version ] && command -v apt-get >/dev/null; then
        for tool in $missing; do
            # shellcheck disable=SC2207 # package names hold no spaces
            wanted+=($(packages "$tool"))
        done
        if [ ${#wanted[@]} -gt 0 ]; then
            echo "setup: installing ${wanted[*]}" >&2
            install "${wanted[@]}" || echo "setup: apt-get could not install ${wanted[*]}" >&2
        fi
        missing=$(missing_of "$@")
        [ -n "$missing" ] || return 0
    fi

    local sentence=""
    for tool in $missing; do
        sentence="${sentence:+$sentence; }$(describe "$tool")"
    done
    echo "setup: missing: $sentence" >&2
    exit 1
}

install() {
    export DEBIAN_FRONTEND=noninteractive
    # With a run level of 1 the packages' own services (nginx) are installed but not started.
    apt-get update -qq </dev/null >&2 &&
        RUNLEVEL=1 apt-get install -qq --yes --no-install-recommends "$@" </dev/null >&2
}

# Python packages that the tests use, each set in a folder of its own and stamped with a copy of what it was made from.
python_packages() { # python_packages FOLDER REQUIREMENTS WHAT
    local venv=target/$1 wanted=$2
    if cmp -s "$wanted" "$venv/.made-from" && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    echo "setup: $3 in $venv" >&2
    rm -rf "$venv"
    mkdir -p target
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --only-binary :all: --requirement "$wanted" </dev/null >&2
    cp "$wanted" "$venv/.made-from"
}

# The client library for Node, the identity provider that people sign in at, and what builds the dashboard.
node_packages() { # node_packages DIRECTORY
    local dir=$1
    if cmp -s "$dir/package-lock.json" "$dir/node_modules/.made-from"; then
        return
    fi
    echo "setup: Node packages in $dir/node_modules" >&2
    (cd "$dir" && npm ci --silent --no-audit --no-fund --ignore-scripts </dev/null >&2)
    cp "$dir/package-lock.json" "$dir/node_modules/.made-from"
}

case ${1:-} in
    demo) require cargo cc ;;
    test)
        require cargo cc python node npm alertmanager chromium
        python_packages venv "$CLIENTS/python/requirements.txt" "Python client"
        python_packages venv-receivers "$RECEIVERS/requirements.txt" "judges of notifications"
        python_packages venv-schema "$SCHEMA/requirements.txt" "what fuzzes the API"
        node_packages "$CLIENTS/node"
        node_packages "$IDENTITY"
        node_packages ui
        ;;
    ui)
        require node npm
        node_packages ui
        ;;
    bench)
        require cargo cc
        # Without it the rest is measured all the same.
        (require nginx) || true
        ;;
    *)
        echo "usage: scripts/setup.sh demo|test|bench|ui" >&2
        exit 2
        ;;
esac
