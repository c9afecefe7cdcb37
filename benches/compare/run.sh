#!/usr/bin/env bash
# CPU per request of Relais, of the bare forwarder and of nginx, side by side.
set -euo pipefail
# shellcheck source=benches/compare/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TENANTS="1 100 1000"
DURATION=8
WARMUP=2
ROUNDS=5
CONNECTIONS=64
PEERS="bare relais nginx"
VERSION=h1

usage() {
    cat <<HELP
Usage: benches/compare/run.sh [OPTIONS]

Measures the CPU time that a request costs in the proxy (user and kernel, all its threads, from
/proc/PID/task/*/schedstat), with one worker thread each and the same load: wrk, $CONNECTIONS connections,
X-Finess rotating over all tenants, answers of 1 KiB. Rounds are interleaved and medians reported. Each
measure is preceded by a warm-up that checks the identity of every response. Prints a Markdown table and
leaves it, with every round as JSON, in the results folder.

Options:
  --tenants LIST     numbers of tenants (default: "$TENANTS")
  --duration S       seconds of each measure (default: $DURATION)
  --warmup S         seconds of the warm-up before it (default: $WARMUP), and one more per 250 tenants
  --rounds N         measures of each proxy (default: $ROUNDS); a single one can be 20 % off,
                     while the medians of five of the same program have agreed within 2 %
  --connections N    connections to the proxy (default: $CONNECTIONS)
  --only LIST        which proxies: bare, relais, nginx, haproxy (default: "$PEERS")
  --no-nginx-proxy   leave nginx out
  --haproxy          HAProxy too
  --h2               HTTP/2 to the upstream; nginx stays with HTTP/1.1
$COMMON_HELP
HELP
}

own_option() {
    case "$1" in
    --tenants) TENANTS="$2" ;;
    --duration) DURATION="$2" ;;
    --warmup) WARMUP="$2" ;;
    --rounds) ROUNDS="$2" ;;
    --connections) CONNECTIONS="$2" ;;
    --only) PEERS="${2//,/ }" ;;
    --no-nginx-proxy) PEERS="${PEERS/nginx/}"; return 1 ;;
    --haproxy) PEERS="$PEERS haproxy"; return 1 ;;
    --h2) VERSION=h2; return 1 ;;
    *) return 0 ;;
    esac
    return 2
}
take_options "$@"

# measure PEER N ROUND: appends a line of JSON to the rounds' file.
measure() {
    local peer="$1" n="$2" port list="$WORK/pki/tenants-$2.txt" warmed report before accepts cpu
    local version="$VERSION"
    if [[ "$peer" == nginx ]]; then version=h1; fi
    port="$(proxy_port "$peer")"
    if ! warmed="$(timeout $((WARMUP + n / 250 + 30)) "$LOAD" --target "127.0.0.1:$port" --tenants "$list" \
        --connections "$CONNECTIONS" --duration "$((WARMUP + n / 250))s")"; then
        say "$peer, $n tenants: the warm-up found fault: $warmed"
    fi
    accepts="$(upstream_accepts)"
    before="$(cpu_ns "$peer")"
    report="$(timeout $((DURATION + 30)) wrk -t1 -c"$CONNECTIONS" -d"${DURATION}s" -s "$HERE/rotate.lua" \
        "http://127.0.0.1:$port" -- "$list" | grep '^{')"
    cpu=$(($(cpu_ns "$peer") - before))
    # Asking for the upstream's status is a connection too.
    accepts=$(($(upstream_accepts) - accepts - 1))
    printf '%s %s %s\n' "$report" "$cpu" "$accepts" | sed 's/[{}:,"]/ /g' | awk -v peer="$peer" -v n="$n" -v round="$3" \
        -v version="$version" -v rss="$(memory_kib "$peer" VmRSS)" \
        -v wrong="$(field wrong_identity <<<"$warmed")" -v warm_failed="$(field failed <<<"$warmed")" '{
            requests = $2; micros = $4; failed = $6
            if (requests == 0) { print "no request was answered" >"/dev/stderr"; exit 1 }
            printf "{\"proxy\":\"%s\",\"upstream\":\"%s\",\"tenants\":%d,\"round\":%d,", peer, version, n, round
            printf "\"cpu_us_per_request\":%.3f,\"requests\":%d,\"failed\":%d,", $11 / 1000 / requests, requests, failed
            printf "\"requests_per_second\":%.0f,\"p50_us\":%d,\"p99_us\":%d,", requests / micros * 1e6, $8, $10
            printf "\"upstream_connections_opened\":%d,\"rss_kib\":%d,", $12, rss
            printf "\"warmup_failed\":%d,\"warmup_wrong_identity\":%d}\n", warm_failed, wrong
        }' | tee -a "$rounds" >&2
}

# The table, out of the rounds' file: medians, and ratios to the bare forwarder and to nginx.
table() {
    sed 's/[{}"]//g; s/[:,]/ /g' "$rounds" | awk -v version="$VERSION" '
        function sorted(name, peer, n,    i, j, k, t) {
            k = split(values[name, peer, n], list, " ")
            for (i = 2; i <= k; i++) for (j = i; j > 1 && list[j - 1] + 0 > list[j] + 0; j--) {
                t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
            }
            return k
        }
        function median(name, peer, n,    k) {
            k = sorted(name, peer, n)
            if (k == 0) return ""
            return k % 2 ? list[(k + 1) / 2] + 0 : (list[k / 2] + list[k / 2 + 1]) / 2
        }
        function ratio(cpu, other) { return other == "" ? "–" : sprintf("%.2f×", cpu / other) }
        {
            for (i = 1; i < NF; i += 2) row[$i] = $(i + 1)
            peer = row["proxy"]; n = row["tenants"]
            if (!((peer, n) in seen)) { seen[peer, n] = 1; order[++count] = peer SUBSEP n }
            for (name in row) values[name, peer, n] = values[name, peer, n] " " row[name]
            label[peer] = peer (row["upstream"] == version ? "" : " (upstream " row["upstream"] ")")
            bad[peer, n] += row["failed"] + row["warmup_failed"]
            wrong[peer, n] += row["warmup_wrong_identity"]
        }
        END {
            print "| tenants | proxy | CPU µs/request | least–most | to bare | to nginx | req/s | p50 µs | p99 µs | connections opened | RSS MiB | failed | wrong identity |"
            print "|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
            for (i = 1; i <= count; i++) {
                split(order[i], key, SUBSEP); peer = key[1]; n = key[2]
                k = sorted("cpu_us_per_request", peer, n); range = sprintf("%.1f–%.1f", list[1], list[k])
                cpu = median("cpu_us_per_request", peer, n)
                printf "| %d | %s | %.1f | %s | %s | %s | %.0f | %d | %d | %d | %.1f | %d | %d |\n", n, label[peer], cpu, range, \
                    ratio(cpu, median("cpu_us_per_request", "bare", n)), ratio(cpu, median("cpu_us_per_request", "nginx", n)), \
                    median("requests_per_second", peer, n), median("p50_us", peer, n), median("p99_us", peer, n), \
                    median("upstream_connections_opened", peer, n), median("rss_kib", peer, n) / 1024, bad[peer, n], wrong[peer, n]
            }
        }'
}

prepare
need wrk wrk
if [[ " $PEERS " == *" haproxy "* ]]; then need haproxy haproxy; fi
if [[ " $PEERS " == *" relais "* ]] && ! relais_serves; then
    say "relais is left out: $RELAIS has no 'serve' yet"
    PEERS="${PEERS/relais/}"
fi

name="$(date -u +%Y%m%dT%H%M%SZ)-$VERSION"
rounds="$RESULTS/$name.jsonl"
: >"$rounds"
for n in $TENANTS; do
    pki "$n"
    start_upstream
    peers=()
    for peer in $PEERS; do
        if "start_$peer" "$n" "$VERSION"; then peers+=("$peer"); else say "$peer is left out"; stop "$peer"; fi
    done
    ((${#peers[@]})) || die "nothing to measure"
    for ((round = 1; round <= ROUNDS; round++)); do
        for peer in "${peers[@]}"; do measure "$peer" "$n" "$round"; done
    done
    stop_all
done

{
    echo "# CPU per request, upstream $([[ $VERSION == h1 ]] && echo HTTP/1.1 || echo HTTP/2)"
    echo
    echo "$(machine). One worker each, $CONNECTIONS connections, answers of 1 KiB; medians of $ROUNDS rounds of $DURATION s; access log $ACCESS_LOG."
    echo
    table
    echo
    versions | sed 's/^/- /'
} | tee "$RESULTS/$name.md"
{
    echo '['
    sed '$!s/$/,/' "$rounds"
    echo ']'
} >"$RESULTS/$name.json"
rm "$rounds"
say "results: $RESULTS/$name.{md,json}"
