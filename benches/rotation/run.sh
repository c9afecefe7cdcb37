#!/usr/bin/env bash
# What a renewal costs: failed requests, time to the new certificate, requests under the old one, CPU, memory.
set -euo pipefail
# shellcheck source=benches/compare/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../compare/lib.sh"

ONLY="one storm many all"
PEERS="relais nginx haproxy"
ROTATIONS=10
INTERVAL=3
CERTIFICATES=10000
# Rotations of `storm`, ten a second.
STORM=600
RATE=2000
SETTLE=60
CONNECTIONS=16
# How many of the tenants are under load while all certificates are replaced.
LOADED=100

usage() {
    cat <<HELP
Usage: benches/rotation/run.sh [OPTIONS]

Replaces certificates while requests go on, and prints what came of it as Markdown; each rotation is left as JSON in
the results folder. The upstream is nginx, wants client certificates, and tells which one it saw; the load keeps
$CONNECTIONS connections and records each request. A request that was lost with a connection that had served before,
without a byte of an answer, is counted as failed and as 'closed idle': a client that repeats a GET hides it.
The exit code is 1 if Relais failed a request, or began one under the old certificate after the swap.

  one     one tenant, $ROTATIONS rotations, under load: Relais by watching the folder and by 'relais reload', nginx by
          '-s reload', HAProxy by 'set ssl cert' and 'commit ssl cert'
  storm   one tenant, ten rotations a second, $STORM in all, under load: Relais by its administration
  many    $CERTIFICATES certificates, one replaced: time to published, CPU of the process. No load.
  all     $CERTIFICATES certificates, all replaced at once, $LOADED tenants under load: time, failures, latency, memory

Options:
  --only LIST        which figures (default: "$ONLY")
  --peers LIST       of 'one': relais, nginx, haproxy (default: "$PEERS")
  --rotations N      rotations of each kind (default: $ROTATIONS)
  --interval S       seconds between them, two at least (default: $INTERVAL)
  --certificates N   of 'many' and 'all' (default: $CERTIFICATES); making 2 × 10,000 takes some minutes, once
  --rate N           requests a second (default: $RATE): a rate that all keep up with, so that latency means something
  --settle S         seconds that 'all' is watched after the change, memory at their end (default: $SETTLE)
  --quick            3 rotations (50 of 'storm'), 500 certificates, 10 s to settle: to try it out in about a minute
$COMMON_HELP
HELP
}

own_option() {
    case "$1" in
    --only) ONLY="${2//,/ }" ;;
    --peers) PEERS="${2//,/ }" ;;
    --rotations) ROTATIONS="$2" ;;
    --interval) INTERVAL="$2" ;;
    --certificates) CERTIFICATES="$2" ;;
    --rate) RATE="$2" ;;
    --settle) SETTLE="$2" ;;
    --quick) ROTATIONS=3 STORM=50 INTERVAL=2 CERTIFICATES=500 SETTLE=10; return 1 ;;
    *) return 0 ;;
    esac
    return 2
}
take_options "$@"

# ── Certificates ────────────────────────────────────────────────────────────────────────────────────────────────

# The serial number of a renewed certificate is its rotation and five digits of its tenant; those of the first ones
# are random and long. So the upstream's answers tell which rotation a request was under.

# renewed ROTATION FIRST LAST: makes certificates of these tenants, in pki/renewed-ROTATION, unless they are there.
renewed() {
    local folder="renewed-$1"
    pki "$3"
    mkdir -p "$WORK/pki/$folder"
    export -f tenant certificate finess
    export WORK KEYS
    # shellcheck disable=SC2016  # expanded by the inner shell
    seq "$2" "$3" | xargs -P "$(nproc)" -I {} bash -c 'set -euo pipefail
        tenant {} "$0" -set_serial "0x$1$(printf %05d {})"' "$folder" "$1"
}

renewals_of_one() {
    local k
    for ((k = 1; k <= ROTATIONS; k++)); do renewed "$k" 1 1; done
}

# loaded N: the folder `tenants-rotation` with the first certificates of N tenants, for proxies to use. To link a file
# is a change of it, and Relais reads files again that have changed within the last two seconds.
loaded() {
    local folder="$WORK/pki/tenants-rotation"
    pki "$1"
    rm -rf "$folder"
    cp -al "$WORK/pki/tenants-$1" "$folder"
    cp "$WORK/pki/tenants-$1.txt" "$folder.txt"
    (($1 == 1)) || sleep 3
    TENANT="$(head -n 1 "$folder.txt")"
    FILE="$folder/$TENANT.pem"
}

# put ROTATION: the tenant's certificate, as a deployment should: written aside, then renamed. Leaves in CHANGED when.
put() {
    cp "$WORK/pki/renewed-$1/$TENANT.pem" "$WORK/pki/aside"
    CHANGED=${EPOCHREALTIME/[.,]/}
    mv -f "$WORK/pki/aside" "$FILE"
}

# ── Triggers: each returns when the proxy has answered, or at once where nobody has to say anything ──────────────

watching() { :; }

command_line() { "$RELAIS" reload --config "$WORK/relais.toml" >"$WORK/reload.txt" || fault "relais reload: $(<"$WORK/reload.txt")"; }

signal() { "$NGINX" -p "$WORK" -c "$WORK/nginx.conf" -s reload 2>>"$WORK/nginx.log" || fault "nginx -s reload"; }

runtime() {
    local answer
    # A blank line ends the certificate.
    ask_haproxy "set ssl cert $FILE <<"$'\n'"$(<"$FILE")"$'\n' >/dev/null
    answer="$(ask_haproxy "commit ssl cert $FILE")"
    [[ "$answer" == *Success* ]] || fault "HAProxy: $answer"
}

ask_haproxy() {
    local socket
    exec {socket}<>"/dev/tcp/127.0.0.1/$HAPROXY_ADMIN"
    printf '%s\n' "$1" >&"$socket"
    cat <&"$socket"
    exec {socket}>&-
}

# reload_now: POST /api/v1/reload; how long it took in ms. The answer is left in reload.json.
reload_now() {
    curl -sS --max-time 60 -X POST -o "$WORK/reload.json" -w '%{time_total}' "http://127.0.0.1:$ADMIN_PORT/api/v1/reload" |
        awk '{ printf "%.1f\n", $1 * 1000 }'
}

# The serial number under which the tenant's requests would be sent now.
serial_in_use() {
    curl -sS --max-time 5 -H "X-Finess: $TENANT" "http://127.0.0.1:$RELAIS_PORT/-/identity/dmp" |
        sed -n 's/.*"serial":"0*\([^"]*\)".*/\1/p'
}

# ── Load, and what is made of its record ────────────────────────────────────────────────────────────────────────

# begin_load PEER TENANTS SECONDS: into the file `record`, in the background.
begin_load() {
    : >"$WORK/events"
    timeout $(($3 + 30)) "$LOAD" --target "127.0.0.1:$(proxy_port "$1")" --tenants "$2" --connections "$CONNECTIONS" \
        --rate "$RATE" --duration "$3s" --record "$WORK/record" >"$WORK/load.json" 2>"$WORK/load.log" &
    PIDS[load]=$!
}

end_load() {
    # Requests that failed are in the record.
    wait "${PIDS[load]}" || true
    unset 'PIDS[load]'
    [[ "$(field wrong_identity <"$WORK/load.json")/$(field wrong_response <"$WORK/load.json")" == 0/0 ]] ||
        fault "the load found fault: $(cat "$WORK/load.json" "$WORK/load.log")"
}

# judge PROXY HOW: what came of the rotations.
judge() {
    awk -v proxy="$1" -v how="$2" -f "$ROOT/benches/rotation/judge.awk" "$WORK/events" "$WORK/record" "$WORK/record"
}

# One row for each kind of rotation, out of lines of JSON.
table() { sed 's/[{}"]//g; s/[:,]/ /g' | awk -f "$ROOT/benches/rotation/table.awk"; }

# ── Figures ─────────────────────────────────────────────────────────────────────────────────────────────────────

# rotate PEER TRIGGER LABEL: rotations of one tenant under load.
rotate() {
    local told k
    loaded 1
    start_upstream
    "start_$1" rotation h1 || { fault "$1 does not start"; stop_all; return; }
    begin_load "$1" "$WORK/pki/tenants-rotation.txt" $((3 + ROTATIONS * INTERVAL))
    sleep 2
    for ((k = 1; k <= ROTATIONS; k++)); do
        put "$k"
        "$2"
        told=${EPOCHREALTIME/[.,]/}
        # Whoever is only signalled, or not at all, has not answered.
        [[ "$2" == command_line || "$2" == runtime ]] || told=0
        echo "$k $CHANGED $told $((CHANGED + INTERVAL * 1000000))" >>"$WORK/events"
        sleep "$INTERVAL"
    done
    end_load
    judge "$1" "$3" >"$WORK/judged"
    tee -a "$rounds" "$WORK/one.jsonl" <"$WORK/judged" >&2
    # What others do is a figure; what Relais does is a promise.
    if [[ "$1" == relais ]] && grep -Eqv '"failed":0,.*"old_after_swap":0,' "$WORK/judged"; then
        fault "$3: Relais failed a request, or began one under the old certificate after the swap"
    fi
    stop_all
}

one() {
    renewals_of_one
    : >"$WORK/one.jsonl"
    if [[ " $PEERS " == *" relais "* ]]; then
        RELAIS_IDENTITIES='' rotate relais watching watching
        RELAIS_IDENTITIES='reload = "manual"' rotate relais command_line relais_reload
    fi
    if [[ " $PEERS " == *" nginx "* ]]; then rotate nginx signal -s_reload; fi
    if [[ " $PEERS " == *" haproxy "* ]]; then
        need "$HAPROXY" haproxy
        rotate haproxy runtime commit_ssl_cert
    fi
    echo "## One certificate, under load"
    echo
    echo "$RATE requests a second on $CONNECTIONS connections, a rotation every $INTERVAL s. Median / worst; times are from the file's change. The swap is the answer of the proxy where it gives one (relais reload, commit ssl cert), else the first answer under the new certificate. p99 is of the second before the change, and of the second from the first request under the new certificate on, handshakes included."
    echo
    table <"$WORK/one.jsonl"
    echo
}

storm() {
    local k from told
    for ((k = 1; k <= STORM; k++)); do renewed "$k" 1 1; done
    loaded 1
    start_upstream
    RELAIS_IDENTITIES='reload = "manual"' start_relais rotation h1
    begin_load relais "$WORK/pki/tenants-rotation.txt" $((4 + STORM / 10))
    sleep 2
    from=${EPOCHREALTIME/[.,]/}
    for ((k = 1; k <= STORM; k++)); do
        put "$k"
        reload_now >/dev/null
        told=${EPOCHREALTIME/[.,]/}
        echo "$k $CHANGED $told $((CHANGED > from + k * 100000 ? CHANGED : from + k * 100000))" >>"$WORK/events"
        sleep "$(awk -v us=$((from + k * 100000 - ${EPOCHREALTIME/[.,]/})) 'BEGIN { printf "%.3f", (us > 0 ? us / 1e6 : 0) }')"
    done
    end_load
    stop_all
    judge relais storm >"$WORK/judged"
    cat "$WORK/judged" >>"$rounds"
    echo "## Ten rotations a second, under load"
    echo
    echo "$RATE requests a second on $CONNECTIONS connections; each rotation by POST /api/v1/reload."
    echo
    echo "| rotations | in s | requests | failed | under the old certificate after the swap | answer of reload, ms: median | worst |"
    echo "|--:|--:|--:|--:|--:|--:|--:|"
    told="$(sed 's/.*"told_ms":\([0-9.]*\).*/\1/' "$WORK/judged" | spread '' | sed 's/^|  | //')"
    sed 's/[{}"]//g; s/[:,]/ /g' "$WORK/judged" | awk -v told="$told" -v n="$STORM" '{
        for (i = 1; i < NF; i += 2) row[$i] = $(i + 1)
        requests += row["requests"]; failed += row["failed"]; stale += row["old_after_swap"]
    } END { printf "| %d | %d | %d | %d | %d | %s\n", NR, n / 10, requests, failed, stale, told; exit failed + stale > 0 }' ||
        fault "Relais failed a request, or began one under the old certificate after the swap"
    echo
}

# spread LABEL: median and worst of numbers, one a line, as a row.
spread() {
    sort -n | awk -v label="$1" '
        { value[NR] = $1 }
        END { m = NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2; printf "| %s | %.1f | %.1f |\n", label, m, value[NR] }'
}

# expect ROTATION: that this one is in use.
expect() {
    local serial
    serial="$(serial_in_use)"
    [[ "$serial" == "${1}00001" ]] || fault "rotation $1 is not in use: $serial"
}

# CPU time of Relais so far, in ms, by ticks of the system (10 ms). Files are decoded by threads that are gone
# afterwards, which only the process as a whole remembers.
cpu_ms() { awk -v tick="$(getconf CLK_TCK)" '{ printf "%.0f", ($14 + $15) * 1000 / tick }' "/proc/${PIDS[relais]}/stat"; }

# The CPU of Relais over as many seconds as there are rotations, in % of a core; `each` runs every second.
cpu_share() {
    local before k from
    before="$(cpu_ms)" from=${EPOCHREALTIME/[.,]/}
    for ((k = 1; k <= ROTATIONS; k++)); do
        "$@" "$k"
        # Not after the time that it took: every second.
        sleep "$(awk -v us=$((from + k * 1000000 - ${EPOCHREALTIME/[.,]/})) 'BEGIN { printf "%.3f", (us > 0 ? us / 1e6 : 0) }')"
    done
    awk -v ms=$(($(cpu_ms) - before)) -v us=$((${EPOCHREALTIME/[.,]/} - from)) 'BEGIN { printf "%.1f", ms * 1e5 / us }'
}

many() {
    local k before took idle busy cpu=0
    renewals_of_one
    rm -f "$WORK"/{times,own,watched}
    loaded "$CERTIFICATES"
    start_upstream
    RELAIS_IDENTITIES='reload = "manual"' start_relais rotation h1
    # Once without a change: what is read for the first time is not what is measured.
    reload_now >/dev/null
    for ((k = 1; k <= ROTATIONS; k++)); do
        put "$k"
        before="$(cpu_ms)"
        took="$(reload_now)"
        echo "$took" >>"$WORK/times"
        cpu=$((cpu + $(cpu_ms) - before))
        printf "%s\n" "$(field milliseconds <"$WORK/reload.json")" >>"$WORK/own"
        expect "$k"
        echo "{\"proxy\":\"relais\",\"figure\":\"many\",\"rotation\":$k,\"reload_ms\":$took}" >>"$rounds"
    done
    stop relais
    loaded "$CERTIFICATES"
    RELAIS_IDENTITIES='' start_relais rotation h1
    for ((k = 1; k <= ROTATIONS; k++)); do
        sleep 0.5
        put "$k"
        until [[ "$(serial_in_use)" == "${k}00001" ]]; do
            ((${EPOCHREALTIME/[.,]/} - CHANGED < 10000000)) || { fault "rotation $k is not taken up by watching"; break; }
            sleep 0.005
        done
        echo $((${EPOCHREALTIME/[.,]/} - CHANGED)) | awk '{ print $1 / 1000 }' >>"$WORK/watched"
        echo "{\"proxy\":\"relais\",\"figure\":\"many\",\"rotation\":$k,\"watched_ms\":$(tail -n 1 "$WORK/watched")}" >>"$rounds"
    done
    idle="$(cpu_share :)"
    busy="$(cpu_share put)"
    stop_all
    echo "## One of $CERTIFICATES certificates, no load"
    echo
    echo "| | median | worst |"
    echo "|:--|--:|--:|"
    spread "POST /api/v1/reload until its answer, ms" <"$WORK/times"
    spread "of that by its own report, ms" <"$WORK/own"
    spread "by watching, from the rename to published, ms (100 of them are waited for quiet)" <"$WORK/watched"
    echo "| CPU of the process for it, ms (mean) | $(awk -v ms="$cpu" -v n="$ROTATIONS" 'BEGIN { printf "%.1f", ms / n }') | |"
    echo "| CPU with one change a second, % of a core | $busy | |"
    echo "| CPU at rest, % of a core | $idle | |"
    echo
}

# replace_all TRIGGER LABEL
replace_all() {
    local pki="$WORK/pki" before peak after told=0 moved row count
    loaded "$CERTIFICATES"
    rm -rf "$pki/aside-all"
    mkdir "$pki/aside-all"
    sed "s|.*|$pki/renewed-1/&.pem|" "$pki/tenants-rotation.txt" | xargs cp -l -t "$pki/aside-all"
    # Some from everywhere in the folder.
    awk -v step=$((CERTIFICATES / LOADED)) 'NR % step == 0' "$pki/tenants-rotation.txt" >"$pki/tenants-loaded.txt"
    start_upstream
    start_relais rotation h1 || { fault "relais does not start"; stop_all; return; }
    # Files that were read within two seconds of their change are read again at the next look, half a minute later:
    # the load lasts for as long as that is to be seen.
    begin_load relais "$pki/tenants-loaded.txt" $((5 + SETTLE + 1))
    sleep 5
    before="$(memory_kib relais VmRSS)"
    reset_peak relais
    CHANGED=${EPOCHREALTIME/[.,]/}
    find "$pki/aside-all" -name '*.pem' -exec mv -f -t "$pki/tenants-rotation" {} +
    moved=${EPOCHREALTIME/[.,]/}
    if [[ "$1" == command_line ]]; then
        command_line
        told=${EPOCHREALTIME/[.,]/}
    fi
    echo "1 $CHANGED $told $((CHANGED + SETTLE * 1000000))" >>"$WORK/events"
    end_load
    after="$(memory_kib relais VmRSS)"
    peak="$(memory_kib relais VmHWM)"
    count="$(curl -sS --max-time 30 "http://127.0.0.1:$ADMIN_PORT/api/v1/certificates" |
        grep -o '"serial":"0*1[0-9]\{5\}"' | wc -l)"
    stop_all
    row="$(judge relais "$2")"
    say "$row"
    [[ "$row" == *'"failed":0,'* ]] || fault "$2: Relais failed a request"
    echo "${row%\}},\"figure\":\"all\",\"renamed_ms\":$(((moved - CHANGED) / 1000)),\"renewed\":$count,\"rss_before_kib\":$before,\"rss_peak_kib\":$peak,\"rss_after_kib\":$after}" |
        tee -a "$rounds" "$WORK/all.jsonl" >/dev/null
    ((count == CERTIFICATES)) || fault "$count of $CERTIFICATES certificates are the renewed ones"
}

all() {
    renewed 1 1 "$CERTIFICATES"
    : >"$WORK/all.jsonl"
    RELAIS_IDENTITIES='' replace_all watching watching
    RELAIS_IDENTITIES='reload = "manual"' replace_all command_line relais_reload
    echo "## All $CERTIFICATES certificates at once, under load"
    echo
    echo "$RATE requests a second on $CONNECTIONS connections, for $LOADED of the tenants in turn; each of them needs a new connection then. Times are from the first of the renames."
    echo
    echo "| | all renamed, ms | answer of reload, ms | last request under an old one, ms | failed | p99 µs: before | until the first new one | the second from then on | the rest | RSS MiB: before | peak | after $SETTLE s |"
    echo "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    sed 's/[{}"]//g; s/[:,]/ /g' "$WORK/all.jsonl" | awk '{
        for (i = 1; i < NF; i += 2) row[$i] = $(i + 1)
        gsub("_", " ", row["how"])
        printf "| %s | %s | %s | %s | %d | %s | %s | %s | %s | %.1f | %.1f | %.1f |\n", row["how"], row["renamed_ms"], row["told_ms"], \
            row["last_old_ms"], row["failed"], row["p99_before_us"], row["p99_during_us"], row["p99_after_us"], row["p99_rest_us"], \
            row["rss_before_kib"] / 1024, row["rss_peak_kib"] / 1024, row["rss_after_kib"] / 1024
    }' | sed 's/| null/| –/g'
    echo
}

prepare
relais_serves || die "${RELAIS#"$ROOT/"} has no serve command"
name="$(date -u +%Y%m%dT%H%M%SZ)-rotation"
rounds="$RESULTS/$name.jsonl"
: >"$rounds"
exec > >(tee "$RESULTS/$name.md")
tee=$!
echo "# Rotation"
echo
machine
echo
versions | sed 's/^/- /'
echo
for figure in $ONLY; do
    case "$figure" in
    one | storm | many | all) "$figure" ;;
    *) die "no such figure: $figure" ;;
    esac
done
exec >&2
wait "$tee"
{
    echo '['
    sed '$!s/$/,/' "$rounds"
    echo ']'
} >"$RESULTS/$name.json"
rm "$rounds"
say "results: $RESULTS/$name.{md,json}"
((FAULTS == 0)) || { say "$FAULTS faults"; exit 1; }
