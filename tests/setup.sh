#!/usr/bin/env bash
# Gets ready what the tests need: `make test-deps` runs it. As root on Debian it installs packages; elsewhere it says
# what is missing and which tests are left out for it (pytest skips them with the same reason). Quick when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'test-deps: %s\n' "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# A run that decides about a change must not pass by leaving tests out.
give_up_in_ci() { if [ "${CI:-}" = true ]; then say "incomplete, and this is CI"; exit 1; fi; }

# -- packages: what to look for, the Debian packages that bring it, what is left out without it
packages=()
left_out=()
need() { # need CONDITION_RESULT PACKAGES LEFT_OUT
  [ "$1" = 0 ] && return
  read -ra wanted <<<"$2"
  packages+=("${wanted[@]}")
  left_out+=("$3")
}
check() { "$@" >/dev/null 2>&1 && echo 0 || echo 1; }

need "$(check have java)" default-jre-headless "tests that run Apache's server or its shell"
need "$(check test -e /usr/share/java/zookeeper.jar)" "zookeeper libzookeeper-java" "tests that run Apache's server or its shell"
need "$(check test -e /usr/share/java/jetty9-server.jar)" "libjetty9-java libservlet-api-java" "tests that ask Apache's admin server"
need "$(check test -e /usr/share/java/jackson-databind.jar)" libjackson2-databind-java "tests that ask Apache's admin server"
need "$(check have chromium)" chromium "tests that look at the status page"
need "$(check test -x /usr/lib/zookeeper/bin/cli_mt)" zookeeper-bin "the C client's shell"
need "$(check test -e /usr/include/zookeeper/zookeeper.h)" libzookeeper-mt-dev "the C client"
need "$(check have mkfs.ext4)" e2fsprogs "power cuts"
need "$(check have mkfs.xfs)" xfsprogs "power cuts"
need "$(check have mkfs.btrfs)" btrfs-progs "power cuts"
need "$(check have ip)" iproute2 "power cuts, tests that cut wires"
need "$(check have c++)" g++ "the fuzzer"
need "$(check have systemd-nspawn)" systemd-container "the test with three hosts"
need "$(check have gcc)" "gcc libc6-dev" "the C client"
need "$(check have nc)" netcat-openbsd "the tour in README.md"
need "$(check python3 -c 'import ensurepip, venv')" python3-venv "every test with a client"
if ! have node || ! have npm; then need 1 "nodejs npm" "the JavaScript client"; fi

if [ ${#packages[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && have apt-get; then
    say "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
  else
    say "not root on Debian: missing ${packages[*]}"
    printf '%s\n' "${left_out[@]}" | sort -u | while read -r what; do say "left out: $what"; done
    give_up_in_ci
  fi
fi

# -- Python: an environment for the tests, and one for kazoo's own suite
make_venv() { # make_venv FOLDER REQUIREMENTS LEFT_OUT
  cmp -s "$2" "$1/.installed" && return
  if python3 -c 'import ensurepip, venv' 2>/dev/null; then
    say "making $1"
    [ -x "$1/bin/python" ] || python3 -m venv "$1"
    "$1/bin/pip" install -q -r "$2"
    cp "$2" "$1/.installed"
  else
    say "no python3 with venv: left out: $3"
    give_up_in_ci
  fi
}
make_venv .venv tests/clients/requirements.txt "every test with a client"
make_venv .venv-kazoo tests/clients/kazoo_suite/requirements.txt "kazoo's own tests"

# -- JavaScript
node=tests/clients/node
if have node && have npm && ! cmp -s "$node/package-lock.json" "$node/node_modules/.installed"; then
  say "installing the JavaScript client"
  (cd "$node" && npm ci --silent --no-audit --no-fund >/dev/null 2>&1) \
    || { say "npm failed: left out: the JavaScript client"; give_up_in_ci; }
  [ -d "$node/node_modules/node-zookeeper-client" ] && cp "$node/package-lock.json" "$node/node_modules/.installed"
fi
say "ready"
