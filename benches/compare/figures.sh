#!/usr/bin/env bash
# What is counted rather than timed: identities under interleaving, memory under large bodies, a whole country's structures.
set -euo pipefail
# shellcheck source=benches/compare/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PEER=relais
ONLY="identities bodies scale"
REQUESTS=160000
SIZE_MIB=1024
CERTIFICATES=10000
STRUCTURES=150000

usage() {
    cat <<HELP
Usage: benches/compare/figures.sh [OPTIONS]

Takes these figures and prints them as Markdown, with the machine and the versions:
  identities   $REQUESTS requests interleaved over 100 tenants on 16 connections, in turn and at random, to an
               upstream of HTTP/1.1 and of HTTP/2: responses under another tenant's certificate (must be 0)
  bodies       1 GiB up and 1 GiB down: status, bytes that arrived, growth of the proxy's memory
  scale        $CERTIFICATES certificates, three services, a table of $STRUCTURES structures: 'relais check', ready, memory
What cannot be done here is left out and said. The exit code is 1 if a response was wrong, failed or incomplete.

Options:
  --only LIST        which figures (default: "$ONLY")
  --peer PEER        what is measured: relais, or bare, nginx, haproxy to compare or to try this out (default: $PEER)
  --requests N       requests of each run of 'identities' (default: $REQUESTS)
  --size MIB         size of each body of 'bodies' (default: $SIZE_MIB)
$COMMON_HELP
HELP
}

own_option() {
    case "$1" in
    --only) ONLY="${2//,/ }" ;;
    --peer) PEER="$2" ;;
    --requests) REQUESTS="$2" ;;
    --size) SIZE_MIB="$2" ;;
    *) return 0 ;;
    esac
    return 2
}
take_options "$@"

# In MiB, with one decimal.
mib() { awk -v kib="$1" 'BEGIN { printf "%.1f", kib / 1024 }'; }

http_version() { if [[ "$1" == h2 ]]; then echo HTTP/2; else echo HTTP/1.1; fi; }

identities() {
    local version order report wrong mixed failed
    echo "## Identities: $REQUESTS requests over 100 tenants, 16 connections"
    echo
    echo "| upstream | order | requests | wrong identity | wrong response | failed | req/s | upstream connections |"
    echo "|:--|:--|--:|--:|--:|--:|--:|--:|"
    pki 100
    for version in h1 h2; do
        start_upstream
        "start_$PEER" 100 "$version" || { fault "$PEER does not start"; return; }
        for order in round-robin random; do
            accepts="$(upstream_accepts)"
            report="$(timeout 600 "$LOAD" --target "127.0.0.1:$(proxy_port "$PEER")" --tenants "$WORK/pki/tenants-100.txt" \
                --connections 16 --requests "$REQUESTS" --order "$order")" || true
            wrong="$(field wrong_identity <<<"$report")" mixed="$(field wrong_response <<<"$report")" failed="$(field failed <<<"$report")"
            [[ "$wrong/$mixed/$failed" == 0/0/0 ]] || fault "$(http_version "$version"), $order: ${report:-no report}"
            echo "| $(http_version "$version") | $order | $(field requests <<<"$report") | $wrong | $mixed | $failed |" \
                "$(field requests_per_second <<<"$report") | $(($(upstream_accepts) - accepts - 1)) |"
        done
        stop_all
    done
    # A checker that has never found anything proves nothing.
    start_upstream
    start_nginx 100 h1 shared || { fault "nginx does not start"; return; }
    report="$(timeout 600 "$LOAD" --target "127.0.0.1:$NGINX_PORT" --tenants "$WORK/pki/tenants-100.txt" \
        --connections 16 --requests "$REQUESTS")" || true
    stop_all
    wrong="$(field wrong_identity <<<"$report")"
    ((${wrong:-0} > 0)) || fault "the load did not notice mixed identities: $report"
    echo
    echo "Control: nginx $("$NGINX" -v 2>&1 | sed 's|.*/||') with one upstream block for all tenants:" \
        "${wrong:-?} of $(field requests <<<"$report") under another tenant's certificate."
    echo
}

# body DIRECTION VERSION FINESS: one row; the proxy has served a request already, so that growth is the body's alone.
body() {
    local direction="$1" url before peak after arrived reply status options
    url="http://127.0.0.1:$(proxy_port "$PEER")/dmp"
    options=(-sS --max-time 600 -H "X-Finess: $3" -H "Expect:" -D "$WORK/head.txt")
    reset_peak "$PEER"
    before="$(memory_kib "$PEER" VmRSS)"
    if [[ "$direction" == up ]]; then
        # Relais takes `/dmp` off the path, the others do not; the upstream looks at the end alone.
        reply="$(head -c "$((SIZE_MIB << 20))" /dev/zero | curl "${options[@]}" -o /dev/null -T - \
            -w '%{http_code} %{time_total}' "$url/sink")" || fault "curl cannot send: $reply"
        arrived="$(tr -d '\r' <"$WORK/head.txt" | awk 'tolower($1) == "x-received:" { print $2 }')"
    else
        reply="$(curl "${options[@]}" -w '%{http_code} %{time_total} %{size_download}' -o /dev/null "$url/big")" ||
            fault "curl cannot receive: $reply"
        arrived="${reply##* }"
    fi
    status="${reply%% *}"
    peak="$(memory_kib "$PEER" VmHWM)"
    sleep 1
    after="$(memory_kib "$PEER" VmRSS)"
    if [[ "$status" != 200 ]] || ((${arrived:-0} < SIZE_MIB << 20)); then
        fault "$SIZE_MIB MiB $direction, $(http_version "$2"): status $status, ${arrived:-0} bytes arrived"
    fi
    echo "| $direction | $(http_version "$2") | $status | $(mib "$((${arrived:-0} / 1024))") |" \
        "$(awk '{ print $2 }' <<<"$reply") | $(mib "$before") | $(mib "$((peak - before))") | $(mib "$((after - before))") |"
}

bodies() {
    local version number
    echo "## Bodies of $SIZE_MIB MiB"
    echo
    if (($(df -Pm "$WORK" | awk 'NR == 2 { print $4 }') < SIZE_MIB + 512)); then
        echo "Left out: the upstream keeps what it receives in $WORK for a moment, and there is not room for it."
        echo
        return
    fi
    echo "| direction | upstream | status | MiB arrived | s | RSS MiB before | growth, peak | growth, 1 s after |"
    echo "|:--|:--|--:|--:|--:|--:|--:|--:|"
    pki 100
    number="$(head -n 1 "$WORK/pki/tenants-100.txt")"
    mkdir -p "$WORK/files"
    # A hole: it takes no room.
    truncate -s "${SIZE_MIB}M" "$WORK/files/big"
    for version in h1 h2; do
        start_upstream
        "start_$PEER" 100 "$version" || { fault "$PEER does not start"; return; }
        timeout 60 "$LOAD" --target "127.0.0.1:$(proxy_port "$PEER")" --tenants "$WORK/pki/tenants-100.txt" \
            --connections 4 --requests 1000 >/dev/null || fault "the warm-up found fault"
        body up "$version" "$number"
        body down "$version" "$number"
        stop_all
    done
    rm -f "$WORK/files/big"
    echo
}

scale() {
    local folder="$WORK/scale" started took status=0
    echo "## $CERTIFICATES certificates, three services, $STRUCTURES structures"
    echo
    [[ "$PEER" == relais ]] || { echo "Only for Relais."; echo; return; }
    pki "$CERTIFICATES"
    mkdir -p "$folder"
    # Each holder of a certificate is a legal entity, and the sites are theirs in turn.
    awk -v all="$STRUCTURES" '
        BEGIN { print "finess,legal_entity,name,sector" }
        { print $1 ",,ENTITE " NR ",hospital"; entity[NR] = $1 }
        END { for (i = NR + 1; i <= all; i++) printf "9C%07d,%s,SITE %d,hospital\n", i, entity[i % NR + 1], i }
    ' "$WORK/pki/tenants-$CERTIFICATES.txt" >"$folder/tenants.csv"
    cat >"$folder/relais.toml" <<CNF
environment = "test"
[[listeners]]
address = "127.0.0.1:$RELAIS_PORT"
[identities]
directory = "$WORK/pki/tenants-$CERTIFICATES"
[tenants]
file = "tenants.csv"
$(for service in dmp roc ror; do
        printf '[services.%s]\nurl = "https://localhost:%s"\ntrust = "%s/pki/trust.pem"\n' "$service" "$UPSTREAM" "$WORK"
    done)
[admin]
address = "127.0.0.1:$ADMIN_PORT"
[log]
access = "off"
CNF
    started=${EPOCHREALTIME/[.,]/}
    # Warnings are right: tenants share keys here, which real ones never may.
    "$RELAIS" check --config "$folder/relais.toml" >"$folder/check.txt" || status=$?
    took="$(((${EPOCHREALTIME/[.,]/} - started) / 1000))"
    ((status == 0 || status == 3)) || fault "relais check: exit code $status, see $folder/check.txt"
    echo "| | |"
    echo "|:--|--:|"
    echo "| relais check, ms | $took |"
    started=${EPOCHREALTIME/[.,]/}
    start relais "$RELAIS" serve --config "$folder/relais.toml"
    wait_relais "$ADMIN_PORT"
    echo "| from start to ready, ms | $(((${EPOCHREALTIME/[.,]/} - started) / 1000)) |"
    sleep 3
    echo "| VmRSS at rest, MiB | $(mib "$(memory_kib relais VmRSS)") |"
    echo "| VmHWM, MiB | $(mib "$(memory_kib relais VmHWM)") |"
    echo
    stop_all
}

prepare
if [[ "$PEER" == haproxy ]]; then need "$HAPROXY" haproxy; fi
summary="$RESULTS/$(date -u +%Y%m%dT%H%M%SZ)-figures.md"
exec > >(tee "$summary")
tee=$!
echo "# Figures of $PEER"
echo
machine
echo
versions | sed 's/^/- /'
echo
for figure in $ONLY; do
    if [[ "$PEER" == relais ]] && ! relais_serves; then
        echo "## $figure"
        echo
        echo "Left out: ${RELAIS#"$ROOT/"} has no serve command yet."
        echo
        continue
    fi
    case "$figure" in
    identities | bodies | scale) "$figure" ;;
    *) die "no such figure: $figure" ;;
    esac
done
exec >&2
wait "$tee"
say "results: $summary"
((FAULTS == 0)) || { say "$FAULTS faults"; exit 1; }
