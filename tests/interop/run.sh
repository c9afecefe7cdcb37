#!/usr/bin/env bash
# Relais in front of servers that others wrote: nginx and openssl s_server, with certificates made by openssl, asked
# by curl.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
# shellcheck source=tests/support/lib.sh
source "$ROOT/tests/support/lib.sh"
# shellcheck source=tests/interop/site.sh
source "$HERE/site.sh"
# shellcheck source=tests/interop/checks.sh
source "$HERE/checks.sh"

PROFILE=debug
BUILD=1
WORK=""
KEPT=0
FIRST_PORT=""
LIMIT=600
NGINX="${NGINX:-nginx}"

usage() {
    cat <<HELP
Usage: tests/interop/run.sh [OPTIONS]

Starts nginx, openssl s_server and a relais with some thirty tenants, everything on 127.0.0.1, and checks with curl
what an application gets. Prints a line for each promise, 'ok – …' or 'FAILED – …' with what was seen, and at the end
'N passed, N failed'. The exit code is 1 if a promise failed. Missing tools are installed with apt-get.

Options:
  --debug            build and use target/debug/relais (default)
  --release          build and use target/release/relais
  --no-build         use what was built before
  --port P           first of $PORT_COUNT consecutive ports (default: the first free ones from 18500 on)
  --work DIR         keep certificates, configurations and logs in DIR, which is emptied first of what an earlier run
                     left there (default: a temporary folder that is removed)
  --time-limit S     give up after so many seconds, builds and packages not counted (default: $LIMIT)
  -h, --help         this text

Environment:
  NGINX              the nginx to use (default: the one in PATH, installed when there is none)
  RELAIS             the relais to use, which is then not built
HELP
}

while (($#)); do
    case "$1" in
    --debug) PROFILE=debug ;;
    --release) PROFILE=release ;;
    --no-build) BUILD=0 ;;
    --port) FIRST_PORT="${2:?--port wants a number}"; shift ;;
    --work) WORK="${2:?--work wants a folder}"; KEPT=1; shift ;;
    --time-limit) LIMIT="${2:?--time-limit wants seconds}"; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done

clean_up() {
    local status=$?
    trap - EXIT
    stop_all
    if ((!KEPT)) && [[ -n "$WORK" ]]; then rm -rf "$WORK"; fi
    exit "$status"
}

umask 077
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

need openssl openssl
need curl curl
[[ "$NGINX" == */* ]] || need "$NGINX" nginx
if [[ -n "${RELAIS:-}" ]]; then
    RELAIS="$(realpath "$RELAIS")"
else
    RELAIS="$(cd "$ROOT" && realpath -m "${CARGO_TARGET_DIR:-target}")/$PROFILE/relais"
    if ((BUILD)); then
        cargo_options=(--locked --bin relais)
        if [[ "$PROFILE" == release ]]; then cargo_options+=(--release); fi
        (cd "$ROOT" && cargo build "${cargo_options[@]}") || die "relais cannot be built"
    fi
fi
[[ -x "$RELAIS" ]] || die "there is no $RELAIS: run without --no-build"

if ((KEPT)); then
    mkdir -p "$WORK"
    WORK="$(cd "$WORK" && pwd)"
    # Only what a run makes: DIR may have been meant for something else.
    (cd "$WORK" && rm -rf pki certs files passwords ./*.tmp ./*.log ./*.conf relais.toml answer.*)
else
    WORK="$(mktemp -d "${TMPDIR:-/tmp}/relais-interop.XXXXXX")"
fi

# From here on time counts.
SECONDS=0
choose_ports "$FIRST_PORT"
say "relais: $("$RELAIS" --version), $("$NGINX" -v 2>&1 | sed 's/^nginx version: //'), $(openssl version | cut -d' ' -f1-2)"
say "making certificates"
make_certificates
start_servers
start_relais

check_tls_versions
check_http_versions
check_client_certificates
check_key_formats
check_tenants
check_bodies
check_restarts
check_openssl_server
check_untrusted_and_unreachable
check_enrolment
check_certificates_page
check_traditional_key
check_stop
summary
