# shellcheck shell=bash
# What run.sh measures. Each part appends lines of JSON to the rounds' file; report.awk makes tables of them.

# note KEY=VALUE…: a line of JSON. What is no number is a text, without spaces and punctuation that mean something there.
note() {
    local pair value line=""
    for pair; do
        value="${pair#*=}"
        # What is not known is left out, or it would pass for something.
        [[ -n "$value" ]] || continue
        [[ "$value" =~ ^-?[0-9]+(\.[0-9]+)?$ ]] || value="\"$value\""
        line+=",\"${pair%%=*}\":$value"
    done
    echo "{${line:1}}" | tee -a "$rounds" >&2
}

quotient() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", b ? a / b : 0 }'; }

wanted() { [[ " $ONLY " == *" $1 "* ]]; }

# has_peer NAME: whether it is to be measured.
has_peer() { [[ " $PEERS " == *" $1 "* ]]; }

list() { echo "$WORK/pki/tenants-$1.txt"; }

# begin PEER TENANTS VERSION: whether it has started.
begin() {
    if "start_$1" "$2" "$3"; then return 0; fi
    fault "$1 does not start with $2 tenants"
    stop "$1"
    return 1
}

# checked PEER TENANTS OPTIONS…: the load that checks identities; its line of JSON is left in REPORT.
checked() {
    REPORT="$(timeout 300 "$LOAD" --target "127.0.0.1:$(proxy_port "$1")" --tenants "$(list "$2")" "${@:3}")" ||
        fault "$1, $2 tenants: the load found fault: ${REPORT:-no report}"
}
reported() { field "$1" <<<"$REPORT"; }

# warm PEER TENANTS: until each tenant has its connections, and a while longer.
warm() { checked "$1" "$2" --connections "$CONNECTIONS" --requests $((WARMUP + 2 * $2)); }

# ── CPU per request ─────────────────────────────────────────────────────────────────────────────────────────────

# measure PEER TENANTS KEY=VALUE…: CPU per request under all the load that wrk can make.
measure() {
    local peer="$1" n="$2" before lost accepts cpu report requests micros failed p50 p99
    warm "$peer" "$n"
    accepts="$(upstream_accepts)"
    lost="$(lines_lost "$peer")" before="$(threads_cpu "$peer")"
    report="$(timeout $((DURATION + 30)) wrk -t"$WRK_THREADS" -c"$CONNECTIONS" -d"${DURATION}s" -s "$HERE/rotate.lua" \
        "http://127.0.0.1:$(proxy_port "$peer")" -- "$(list "$n")" | grep '^{')" || report="{}"
    cpu="$(cpu_since "$peer" "$before")"
    # Asking for the upstream's status is a connection too.
    accepts=$(($(upstream_accepts) - accepts - 1))
    requests="$(field requests <<<"$report")" micros="$(field micros <<<"$report")" failed="$(field failed <<<"$report")"
    p50="$(field p50_us <<<"$report")" p99="$(field p99_us <<<"$report")"
    ((${requests:-0} > 0)) || { fault "$peer, $n tenants: no request was answered"; return; }
    ((failed == 0)) || fault "$peer, $n tenants: $failed of $requests requests failed"
    [[ "$(lines_lost "$peer")" == "$lost" ]] || fault "$peer, $n tenants: lines of the access log were lost, which makes requests cheaper"
    note "${@:3}" proxy="$peer" tenants="$n" cpu_us_per_request="$(quotient $((cpu / 1000)) "$requests")" requests="$requests" \
        failed="$failed" requests_per_second="$(quotient $((requests * 1000)) $((micros / 1000)))" p50_us="$p50" p99_us="$p99" \
        upstream_connections_opened="$accepts" rss_kib="$(memory_kib "$peer" VmRSS)"
}

# lines_lost PEER: by Relais's own count; the others have none.
lines_lost() {
    [[ "$1" != relais ]] || curl -sS --max-time 5 "http://127.0.0.1:$ADMIN_PORT/metrics" |
        awk '/^relais_access_log_dropped_total/ { sum += $2 } END { print sum + 0 }'
}

# at_rate PEER TENANTS RATE KEY=VALUE…: latency when requests come at a rate, whether or not those before are answered.
at_rate() {
    local before
    before="$(threads_cpu "$1")"
    checked "$1" "$2" --connections "$CONNECTIONS" --rate "$3" --duration "${DURATION}s"
    note "${@:4}" proxy="$1" tenants="$2" rate="$3" requests="$(reported requests)" failed="$(reported failed)" \
        p50_us="$(reported p50_us)" p99_us="$(reported p99_us)" max_us="$(reported max_us)" \
        cpu_us_per_request="$(quotient $(($(cpu_since "$1" "$before") / 1000)) "$(reported requests)")"
}

# Half of the lowest of the peers' highest throughputs at TENANTS, in requests a second.
half_load() {
    sed 's/[{}"]//g; s/[:,]/ /g' "$rounds" | awk -v n="$1" '
        {
            for (i = 1; i < NF; i += 2) row[$i] = $(i + 1)
            if ((row["part"] == "cpu" || row["part"] == "saturation") && row["tenants"] == n) {
                rate = row["requests_per_second"] + 0
                if (rate > highest[row["proxy"]]) highest[row["proxy"]] = rate
            }
        }
        END { for (peer in highest) if (!least || highest[peer] < least) least = highest[peer]; printf "%d", least / 2 }'
}

# All proxies run at once, and are measured in turn: what the machine does meanwhile meets all of them.
side_by_side() {
    local n="$1" peer round rate peers=()
    pki "$n"
    start_upstream
    for peer in $PEERS; do if begin "$peer" "$n" h1; then peers+=("$peer"); fi; done
    if wanted cpu; then
        for ((round = 1; round <= ROUNDS; round++)); do
            for peer in "${peers[@]}"; do measure "$peer" "$n" part=cpu round="$round"; done
        done
    elif wanted latency; then
        for peer in "${peers[@]}"; do measure "$peer" "$n" part=saturation round=1; done
    fi
    if wanted latency; then
        rate="$(half_load "$n")"
        for ((round = 1; round <= ROUNDS; round++)); do
            for peer in "${peers[@]}"; do
                # No target, and the time is better spent on more rounds of the others.
                [[ "$peer" != haproxy ]] || continue
                # After the others' turns its memory is in no cache any more.
                warm "$peer" "$n"
                at_rate "$peer" "$n" "$rate" part=latency round="$round"
            done
        done
    fi
    stop_all
}

# 10,000 certificates take HAProxy half a minute at each start; nothing is to be measured by that.
is_too_slow_to_load() { [[ "$1" == haproxy ]] && (($2 > 1000)); }

# With many tenants, one after the other: the upstream could not have all of their connections open.
one_by_one() {
    local peer round
    pki "$1"
    for peer in $PEERS; do
        ! is_too_slow_to_load "$peer" "$1" || continue
        start_upstream
        if begin "$peer" "$1" h1; then
            for ((round = 1; round <= ROUNDS; round++)); do measure "$peer" "$1" part=cpu round="$round"; done
        fi
        stop_all
    done
}

# ── HTTP/2 to the service, and workers ──────────────────────────────────────────────────────────────────────────

# A process for each measure: they would otherwise want a port each.
afresh() {
    start_upstream
    if begin "$1" "$2" "$3"; then measure "$1" "$2" "${@:4}"; fi
    stop_all
}

http2() {
    local n round peer version
    for n in 1 100; do
        pki "$n"
        for ((round = 1; round <= ROUNDS; round++)); do
            for version in h1 h2 auto; do
                for peer in bare relais; do
                    has_peer "$peer" || continue
                    # The bare forwarder does as it is told.
                    [[ "$peer $version" != "bare auto" ]] || continue
                    afresh "$peer" "$n" "$version" part=http2 upstream="$version" round="$round"
                done
            done
        done
    done
}

scaling() {
    local round peer workers
    pki 100
    for ((round = 1; round <= ROUNDS; round++)); do
        for peer in bare relais; do
            has_peer "$peer" || continue
            for workers in 1 2; do
                # One thread of wrk cannot load two of a proxy; where there are few cores, neither can two.
                WORKERS="$workers" WRK_THREADS="$(($(nproc) < 6 ? 1 : 2))" afresh "$peer" 100 h1 part=scaling workers="$workers" round="$round"
            done
        done
    done
}

# ── Memory and start ────────────────────────────────────────────────────────────────────────────────────────────

memory() {
    local n peer round ready
    for n in 1 100 1000 "$MANY"; do
        ((n)) || continue
        pki "$n"
        for peer in $PEERS; do
            ! is_too_slow_to_load "$peer" "$n" || continue
            for ((round = 1; round <= STARTS; round++)); do
                begin "$peer" "$n" h1 || break
                ready=$(((${EPOCHREALTIME/[.,]/} - STARTED) / 1000))
                # Nothing more happens then but by the clock.
                sleep 2
                note part=memory proxy="$peer" tenants="$n" round="$round" ready_ms="$ready" rss_kib="$(memory_kib "$peer" VmRSS)"
                stop "$peer"
            done
        done
    done
    for peer in $PEERS; do idle_connections "$peer"; done
}

# Memory of connections to the upstream that have served and are idle, when those of applications are closed.
idle_connections() {
    local before open
    start_upstream
    if begin "$1" 1000 h1; then
        sleep 2
        before="$(memory_kib "$1" VmRSS)"
        # Tenants in turn, with far fewer at once than there are: a connection for each.
        checked "$1" 1000 --connections 16 --requests 20000
        # Relais puts connections to rest when they have been idle for five seconds. What it frees by that goes back to the
        # system with the next allocation of some size by anybody: when it looks at its files, every half minute.
        sleep 40
        open="$(upstream_connections)"
        note part=connections proxy="$1" tenants=1000 round=1 open="$open" rss_before_kib="$before" rss_kib="$(memory_kib "$1" VmRSS)" \
            failed="$(reported failed)" requests="$(reported requests)"
        ((open > 0)) || fault "$1 keeps no connection"
    fi
    stop_all
}

# ── Handshakes ──────────────────────────────────────────────────────────────────────────────────────────────────

# handshakes_counted KIND: full or resumed, by Relais's own count.
handshakes_counted() {
    curl -sS --max-time 5 "http://127.0.0.1:$ADMIN_PORT/metrics" |
        awk -v kind="kind=\"$1\"" '/^relais_upstream_handshakes_total/ && index($1, kind) { sum += $2 } END { print sum + 0 }'
}

handshakes() {
    local peer round alone
    alone="$("$CRYPTO" "$WORK/pki/keys/tenant1.pem")" || { fault "the cost of cryptography cannot be measured"; return; }
    note part=crypto rsa_signature_us="$(field rsa_signature_us <<<"$alone")" key_exchange_us="$(field key_exchange_us <<<"$alone")"
    pki 1
    pki 1000
    for peer in $PEERS; do
        for ((round = 1; round <= STARTS; round++)); do cold "$peer" "$round"; done
        crowd "$peer"
        stall "$peer"
    done
}

# cold PEER ROUND: all tenants cold at once; again while their connections are open, which tells the handshakes' price from
# that of requests; in the first round again when all have been closed for want of use.
cold() {
    local before cpu warm_cpu full resumed
    start_upstream
    # Longer than the first two take.
    if IDLE_TIMEOUT=15s begin "$1" 1000 h1; then
        before="$(threads_cpu "$1")"
        checked "$1" 1000 --connections 1000 --requests 1000
        cpu="$(cpu_since "$1" "$before")" full="$(reported full_handshakes)" resumed="$(reported resumed_handshakes)"
        note part=cold proxy="$1" tenants=1000 round="$2" full="$full" resumed="$resumed" p99_us="$(reported p99_us)" \
            failed="$(reported failed)" requests="$(reported requests)"
        before="$(threads_cpu "$1")"
        checked "$1" 1000 --connections 1000 --requests 1000
        # Those that had to be opened all the same would be counted as costing nothing.
        if (($(reported full_handshakes) + $(reported resumed_handshakes) == 0)); then
            warm_cpu="$(cpu_since "$1" "$before")"
            # A price of two kinds together would be the price of neither.
            ((resumed > 0)) || note part=handshake proxy="$1" tenants=1000 round="$2" kind=full \
                cpu_us="$(quotient $(((cpu - warm_cpu) / 1000)) $((full + resumed)))"
        fi
        if [[ "$1" != bare ]] && (($2 == 1)); then after_idling "$1" "${warm_cpu:-}"; fi
    fi
    stop_all
}

# after_idling PEER CPU: what connections begin with that are opened anew; CPU is that of as many requests without.
after_idling() {
    local before cpu full resumed deadline=$((SECONDS + 60))
    until (($(upstream_connections) == 0)); do
        ((SECONDS < deadline)) || { fault "$1 keeps connections that are not used"; return; }
        sleep 0.5
    done
    before="$(threads_cpu "$1")"
    checked "$1" 1000 --connections 1000 --requests 1000
    cpu="$(cpu_since "$1" "$before")" full="$(reported full_handshakes)" resumed="$(reported resumed_handshakes)"
    note part=after_idling proxy="$1" tenants=1000 round=1 full="$full" resumed="$resumed" p99_us="$(reported p99_us)"
    if [[ -n "$2" ]] && ((full == 0)); then
        note part=handshake proxy="$1" tenants=1000 round=1 kind=resumed cpu_us="$(quotient $(((cpu - $2) / 1000)) "$resumed")"
    fi
}

# One tenant, cold, and many requests at once: how many of its connections begin with a full handshake.
crowd() {
    local counted=""
    start_upstream
    if begin "$1" 1 h1; then
        checked "$1" 1 --connections 64 --requests 6400
        [[ "$1" != relais ]] || counted="$(handshakes_counted full)"
        note part=crowd proxy="$1" tenants=1 round=1 full="$(reported full_handshakes)" resumed="$(reported resumed_handshakes)" \
            ${counted:+counted_full="$counted"} failed="$(reported failed)" requests="$(reported requests)"
    fi
    stop_all
}

# A tenant whose connections are open has a few requests a second, while a thousand others come cold: no stall of the
# worker can be longer than the worst of its answers took.
stall() {
    local quiet
    start_upstream
    if begin "$1" 1000 h1; then
        checked "$1" 1000 --first 1 --connections 4 --requests 400
        timeout 60 "$LOAD" --target "127.0.0.1:$(proxy_port "$1")" --tenants "$(list 1)" --connections 4 --rate 500 \
            --duration 6s >"$WORK/quiet.json" &
        quiet=$!
        sleep 2
        checked "$1" 1000 --connections 1000 --requests 1000
        wait "$quiet" || fault "$1: the load beside the burst found fault: $(<"$WORK/quiet.json")"
        note part=stall proxy="$1" tenants=1000 round=1 p50_us="$(field p50_us <"$WORK/quiet.json")" \
            p99_us="$(field p99_us <"$WORK/quiet.json")" max_us="$(field max_us <"$WORK/quiet.json")"
    fi
    stop_all
}

# ── The path of a request, piece by piece ───────────────────────────────────────────────────────────────────────

# These are measured inside the program: by criterion, and by counting allocations on the thread that serves.
path() {
    local output nanos added
    ((BUILD)) || { say "'path' is left out: its programs have to be built"; return; }
    if output="$(cd "$ROOT" && cargo bench --locked --bench relais -- 'look-up, checkout, check-in' 2>&1)"; then
        nanos="$(awk -F'[][ ]+' '/time: / {
            for (i = 1; i <= NF; i++) if ($i == "time:") print $(i + 3) * ($(i + 4) == "ps" ? 0.001 : $(i + 4) == "ns" ? 1 : 1000)
        }' <<<"$output")"
    fi
    if [[ -n "${nanos:-}" ]]; then note part=path nanos="$nanos"; else fault "cargo bench: ${output: -500}"; fi
    if output="$(cd "$ROOT" && cargo test --locked --test allocations -- --nocapture 2>&1)"; then
        # For each way through the gateway: what it allocates beyond the bare forwarder, to what that allocates.
        added="$(sed -n 's/.*: \([0-9.]*\) in the gateway, \([0-9.]*\) in the bare forwarder.*/\1 \2/p' <<<"$output" |
            awk '{ more = ($1 - $2) / $2; if (more > most) most = more } END { if (NR) printf "%.3f", most }')"
    fi
    # That choosing a certificate and taking a connection allocate nothing is what the test fails for.
    if [[ -n "${added:-}" ]]; then note part=path allocations=0 added="$added"; else fault "cargo test: ${output: -500}"; fi
}
