#!/usr/bin/env bash
# Relais beside the bare forwarder, nginx and HAProxy: all that it is to be measured by, in one go.
set -euo pipefail
# shellcheck source=benches/compare/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=benches/compare/parts.sh
source "$HERE/parts.sh"

ONLY="cpu latency http2 scaling memory handshakes path"
PEERS="bare relais nginx haproxy"
TENANTS="1 100 1000"
MANY=10000
DURATION=4
ROUNDS=5
STARTS=3
WARMUP=10000
CONNECTIONS=64
WRK_THREADS=1
ACCESS_LOG=on
REPORT_ONLY=""

usage() {
    cat <<HELP
Usage: benches/compare/run.sh [OPTIONS]

Measures Relais with all that it has (metrics, access log to a file, all rules) beside the bare forwarder, nginx and HAProxy,
with one worker each and under the same load, and says which targets are met. Prints Markdown, and leaves it with all
rounds as JSON and a plot as SVG in the results folder. Takes about 25 minutes on 2 cores; the first time, making $MANY
certificates takes five more.

CPU is that of the proxy, user and kernel, all its threads, from /proc/PID/task/*/schedstat. Rounds are interleaved, and
medians reported. Before each measure the identity of every answer is checked for a while. HAProxy writes no access log: it
could only by a socket of syslog.

  cpu         CPU per request under all the load that wrk can make, $CONNECTIONS connections, the tenants in turn, answers of 1 KiB
  latency     percentiles at half of the load that saturates the slowest of them, the same for all (but HAProxy)
  http2       CPU per request over HTTP/1.1, HTTP/2 and what 'auto' decides, to one tenant and spread over 100
  scaling     CPU per request with two workers and with one; on six cores and more, throughput too
  memory      from exec to ready and memory at rest with 1, 100, 1,000 and $MANY tenants; memory of 1,000 idle connections
  handshakes  1,000 tenants cold at once: kinds, CPU of each, how long another tenant waits meanwhile; resumption later
  path        selection, checkout and check-in by criterion, allocations by 'cargo test'; not with --no-build

The exit code is 1 if something did not run, a request failed or an identity was wrong; a target that is missed is a result.

Options:
  --only LIST        which parts (default: "$ONLY")
  --peers LIST       which proxies (default: "$PEERS")
  --tenants LIST     numbers of tenants of 'cpu' and 'latency' (default: "$TENANTS")
  --many N           the largest number, of 'cpu' and 'memory'; 0 for none (default: $MANY)
  --duration S       seconds of each measure (default: $DURATION)
  --rounds N         measures of each kind (default: $ROUNDS); a single one can be 20 % off, while the medians of five of
                     the same program have agreed within 2 %
  --connections N    connections to the proxy (default: $CONNECTIONS)
  --quick            one round of a second, 2,000 tenants at most: to try it out in a few minutes
  --report FILE      measure nothing: make the tables and the plot of a JSON file from before
$COMMON_HELP
HELP
}

own_option() {
    case "$1" in
    --only) ONLY="${2//,/ }" ;;
    --peers) PEERS="${2//,/ }" ;;
    --tenants) TENANTS="${2//,/ }" ;;
    --many) MANY="$2" ;;
    --duration) DURATION="$2" ;;
    --rounds) ROUNDS="$2" ;;
    --connections) CONNECTIONS="$2" ;;
    --report) REPORT_ONLY="$2" ;;
    --quick) DURATION=1 ROUNDS=1 STARTS=1 WARMUP=2000 MANY=2000; return 1 ;;
    *) return 0 ;;
    esac
    return 2
}
take_options "$@"

# report JSON: the tables of a run, and its plot beside it.
report() {
    local facts
    # Lines of "KEY VALUE…".
    facts="$(grep '^{' "$1" | sed 's/[{}"]//g; s/[:,]/ /g')"
    awk -f "$HERE/report.awk" <<<"$facts"
    awk -f "$HERE/plot.awk" <<<"$facts" >"${1%.json}.svg"
}

if [[ -n "$REPORT_ONLY" ]]; then
    report "$REPORT_ONLY"
    exit
fi

prepare
need wrk wrk
if has_peer haproxy; then need "$HAPROXY" haproxy; fi
if has_peer relais; then relais_serves || die "${RELAIS#"$ROOT/"} has no serve command"; fi
for part in $ONLY; do
    case "$part" in
    cpu | latency | http2 | scaling | memory | handshakes | path) ;;
    *) die "no such part: $part" ;;
    esac
done

name="$(date -u +%Y%m%dT%H%M%SZ)"
rounds="$RESULTS/$name.jsonl"
: >"$rounds"
began=$SECONDS
note part=run machine="$(machine | tr -d ',:{}"' | tr ' ' '_')" cores="$(nproc)" rounds="$ROUNDS" seconds="$DURATION" \
    connections="$CONNECTIONS" access_log="$ACCESS_LOG" tls="${TLS// /_}" \
    versions="$(versions | tr -d ',:{}"' | tr ' \n' '_/' | sed 's,/$,,')"
if wanted cpu || wanted latency; then
    for n in $TENANTS; do side_by_side "$n"; done
fi
if wanted cpu && ((MANY)); then one_by_one "$MANY"; fi
for part in http2 scaling memory handshakes path; do
    if wanted "$part"; then "$part"; fi
done
rm -rf "$WORK/access"
note part=end faults="$FAULTS" minutes="$(((SECONDS - began) / 60))"

{
    echo '['
    sed '$!s/$/,/' "$rounds"
    echo ']'
} >"$RESULTS/$name.json"
rm "$rounds"
report "$RESULTS/$name.json" | tee "$RESULTS/$name.md"
say "results: $RESULTS/$name.{md,json,svg}"
((FAULTS == 0)) || { say "$FAULTS faults"; exit 1; }
