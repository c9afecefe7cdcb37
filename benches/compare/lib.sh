# shellcheck shell=bash
# What run.sh, figures.sh and benches/rotation share: options, packages, a throw-away PKI, and how processes are measured.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
HERE="$ROOT/benches/compare"

# Options that all scripts have, with their defaults.
WORK="$ROOT/target/compare"
RESULTS=""
PORT=18400
KEYS=64
TLS="TLSv1.2 TLSv1.3"
NGINX="${NGINX:-nginx}"
HAPROXY="${HAPROXY:-haproxy}"
ACCESS_LOG=off
BUILD=1

# shellcheck disable=SC2034  # used by all
COMMON_HELP="  --work DIR         where the PKI, configurations and logs go (default: target/compare)
  --results DIR      where results go (default: WORK/results)
  --port P           first of eight ports used on 127.0.0.1 (default: $PORT)
  --tls VERSIONS     what the upstream and the proxies speak (default: \"$TLS\")
  --access-log WHEN  on or off: a line per request to a file, for the proxies that can
  --no-build         use target/release as it is

Environment:
  NGINX, HAPROXY     the ones to use (default: those in PATH, installed with apt-get when there are none)
  RELAIS             the relais to measure (default: target/release/relais)
  RELAIS_SERVICE     lines for Relais's [services.dmp] section, such as 'http = …'
  RELAIS_IDENTITIES  lines for its [identities] section"

# Reads the command line. An option that is not common goes to the script's own_option. Each returns how many words it
# took, 0 for an option that it does not have.
take_options() {
    local taken
    while (($#)); do
        taken=0
        common_option "$@" || taken=$?
        ((taken)) || own_option "$@" || taken=$?
        ((taken)) || { usage >&2; exit 2; }
        shift "$taken"
    done
}

common_option() {
    case "$1" in
    --work) WORK="$(mkdir -p "$2" && cd "$2" && pwd)"; return 2 ;;
    --results) RESULTS="$2"; return 2 ;;
    --port) PORT="$2"; return 2 ;;
    --tls) TLS="$2"; return 2 ;;
    --access-log) ACCESS_LOG="$2"; return 2 ;;
    --no-build) BUILD=0; return 1 ;;
    -h | --help) usage; exit 0 ;;
    *) return 0 ;;
    esac
}

# shellcheck source=tests/support/lib.sh
source "$ROOT/tests/support/lib.sh"
# shellcheck source=benches/compare/proxies.sh
source "$HERE/proxies.sh"

# ── Processes ───────────────────────────────────────────────────────────────────────────────────────────────────

# The process of NAME and its children: nginx works in a child.
processes() {
    local pid="${PIDS[$1]}"
    echo "$pid"
    pgrep -P "$pid" || true
}

# CPU time of each thread of NAME so far, in nanoseconds: lines of "PID/THREAD NANOSECONDS".
threads_cpu() {
    local pid thread spent
    for pid in $(processes "$1"); do
        for thread in "/proc/$pid"/task/*; do
            # It may have ended since it was listed.
            read -r spent _ 2>/dev/null <"$thread/schedstat" || continue
            echo "$pid/${thread##*/} $spent"
        done
    done
}

# cpu_since NAME BEFORE: the CPU time of NAME since threads_cpu said BEFORE, all its threads, in nanoseconds. By thread,
# because one that has ended meanwhile takes all of its past with it.
cpu_since() {
    { echo "$2"; echo; threads_cpu "$1"; } |
        awk '!NF { now = 1; next } !now { before[$1] = $2; next } { sum += $2 - before[$1] } END { printf "%.0f\n", sum }'
}

# memory_kib NAME FIELD: VmRSS or VmHWM of the largest process of NAME. nginx has two, which share nearly all their pages.
memory_kib() {
    local pid
    for pid in $(processes "$1"); do
        cat "/proc/$pid/status" 2>/dev/null || true
    done | awk -v field="$2:" '$1 == field && $2 > most { most = $2 } END { print most + 0 }'
}

# Makes VmHWM start again from VmRSS.
reset_peak() {
    local pid
    for pid in $(processes "$1"); do
        echo 5 >"/proc/$pid/clear_refs" 2>/dev/null || true
    done
}

# ── What must be there ──────────────────────────────────────────────────────────────────────────────────────────

prepare() {
    RESULTS="${RESULTS:-$WORK/results}"
    RELAIS="${RELAIS:-$ROOT/target/release/relais}"
    BARE="$ROOT/target/release/examples/bare-forwarder"
    LOAD="$ROOT/target/release/examples/load"
    CRYPTO="$ROOT/target/release/examples/crypto"
    # shellcheck disable=SC2034  # used by proxies.sh
    UPSTREAM=$PORT STATUS=$((PORT + 1)) BARE_PORT=$((PORT + 2)) RELAIS_PORT=$((PORT + 3)) ADMIN_PORT=$((PORT + 4)) \
        NGINX_PORT=$((PORT + 5)) HAPROXY_PORT=$((PORT + 6)) HAPROXY_ADMIN=$((PORT + 7))
    mkdir -p "$WORK" "$RESULTS"
    umask 077
    # Both ends of every connection are here: thousands of them at 1,000 tenants.
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    need openssl openssl
    need curl curl
    [[ "$NGINX" == */* ]] || need "$NGINX" nginx
    if ((BUILD)); then
        (cd "$ROOT" && cargo build --release --locked --bin relais --example bare-forwarder --example load --example crypto)
    fi
    [[ -x "$BARE" && -x "$LOAD" && -x "$CRYPTO" ]] || die "no release build of the examples: run without --no-build"
    trap stop_all EXIT
    trap 'exit 130' INT TERM
}

# Whether the relais that was built can serve yet.
relais_serves() {
    [[ -x "$RELAIS" ]] && timeout 10 "$RELAIS" serve --help 2>/dev/null | grep -q -- --config
}

machine() {
    printf '%s, %s cores, Linux %s\n' \
        "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" "$(nproc)" "$(uname -r)"
}

# One "name version" a line.
versions() {
    if relais_serves; then timeout 10 "$RELAIS" --version || true; fi
    printf 'commit %s\n' "$(git -C "$ROOT" describe --always --dirty 2>/dev/null || echo unknown)"
    "$NGINX" -v 2>&1 | sed 's/^nginx version: //; s,/, ,'
    if command -v "$HAPROXY" >/dev/null; then "$HAPROXY" -v | awk 'NR == 1 { print "haproxy", $3 }'; fi
    rustc --version 2>/dev/null || true
}

# ── PKI ─────────────────────────────────────────────────────────────────────────────────────────────────────────

# pki N: a root, an issuing CA with IGC-Santé's TEST name, a server certificate, and N tenants' certificates.
# What is there already is kept. Tenants share KEYS keys, which is never right outside a bench.
pki() {
    local pki="$WORK/pki" n="$1" i
    mkdir -p "$pki/tenants"
    authorities ""
    [[ -s "$pki/server.pem" ]] || server_certificate server server issuing
    [[ -s "$pki/tenants-$n.txt" ]] && return 0
    say "making the certificates of $n tenants"
    for ((i = 1; i <= (n < KEYS ? n : KEYS); i++)); do
        [[ -s "$pki/keys/tenant$i.pem" ]] || key "tenant$i"
    done
    export -f tenant certificate finess
    export WORK KEYS
    seq 1 "$n" | xargs -P "$(nproc)" -I {} bash -c 'set -euo pipefail; tenant {}'
    for ((i = 1; i <= n; i++)); do finess "$i"; done >"$pki/tenants-$n.partial"
    # Every folder holds its own N and no others: how many are loaded is part of what is measured.
    mkdir -p "$pki/tenants-$n"
    sed "s|.*|$pki/tenants/&.pem|" "$pki/tenants-$n.partial" | xargs ln -f -t "$pki/tenants-$n"
    mv "$pki/tenants-$n.partial" "$pki/tenants-$n.txt"
}

# tenant N [FOLDER [OPTIONS…]]: the certificate of the N-th tenant, in a folder of the PKI.
tenant() {
    local pki="$WORK/pki" folder="${2:-tenants}" key="tenant$((($1 - 1) % KEYS + 1))" number file
    number="$(finess "$1")"
    file="$pki/$folder/$number.pem"
    [[ -s "$file" ]] && return 0
    certificate "/C=FR/ST=Test (75)/O=STRUCTURE $1/OU=1$number/CN=Test $1" tenant "$key" issuing "${@:3}" >"$file.partial"
    cat "$pki/issuing.pem" "$pki/keys/$key.pem" >>"$file.partial"
    mv "$file.partial" "$file"
}

# ── Results ─────────────────────────────────────────────────────────────────────────────────────────────────────

# Things that may not happen are counted, said, and let the script fail at its end.
FAULTS=0
fault() {
    say "fault: $*"
    FAULTS=$((FAULTS + 1))
}

# field NAME: a number out of the line of JSON on standard input.
field() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }
