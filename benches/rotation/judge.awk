# A line of JSON for each rotation, out of `events`, and the load's record given twice. Events are lines of: rotation,
# when the file was changed, when the proxy said that it was done (0 if it says nothing), until when its requests count;
# the record's are told by `load --help`. Moments are in microseconds.

# The rotation during which something happened; 0 before the first.
function current(at,    k) {
    for (k = rotations; k > 0; k--) if (at >= changed[k]) return at < until[k] ? k : 0
    return 0
}
function generation(serial) { return length(serial) > 12 ? 0 : int((serial + 0) / 100000) }
# Counted by 10 µs.
function note(k, window, took) {
    took = int(took / 10)
    seen[k, window, took]++; count[k, window]++
    if (took > highest[k, window]) highest[k, window] = took
}
function p99(k, window,    rest, took) {
    if (count[k, window] < 100) return "null"
    rest = int(count[k, window] / 100)
    for (took = highest[k, window]; rest > 0; took--) rest -= seen[k, window, took]
    return (took + 1) * 10
}
function ms(at, k) { return at ? sprintf("%.1f", (at - changed[k]) / 1000) : "null" }
FNR == 1 { file++ }
file == 1 {
    k = ++rotations; wanted[k] = $1; changed[k] = $2; told[k] = $3; until[k] = $4
    next
}
# First time through the record: when the new certificate came, when the old one was last used.
file == 2 {
    if ($4 != "200") {
        # When it ended is when it failed.
        if (k = current($2)) { failed[k]++; if ($4 == "closed_idle") closed[k]++ } else elsewhere++
        next
    }
    if (!(k = current($1))) next
    requests[k]++
    if (generation($5) == wanted[k]) {
        if (!first[k] || $2 < first[k]) first[k] = $2
        # Those that waited for the first handshake started with it.
        if (!started[k] || $1 < started[k]) started[k] = $1
    } else if ($1 > last[k]) last[k] = $1
    next
}
# Second time: what is counted from these moments.
$4 == "200" {
    for (k = 1; k <= rotations; k++) {
        swap = told[k] ? told[k] : first[k]
        taken = started[k] ? started[k] : told[k]
        if ($1 >= changed[k] - 1e6 && $1 < changed[k]) note(k, "before", $3)
        if (!swap) continue
        if ($1 >= changed[k] && $1 < taken) note(k, "during", $3)
        if ($1 >= taken && $1 < taken + 1e6) note(k, "after", $3)
        if ($1 >= taken + 1e6 && $1 < until[k]) note(k, "rest", $3)
        if ($1 >= swap && $1 < until[k] && generation($5) != wanted[k]) stale[k]++
    }
}
END {
    for (k = 1; k <= rotations; k++) {
        printf "{\"proxy\":\"%s\",\"how\":\"%s\",\"rotation\":%d,\"requests\":%d,", proxy, how, k, requests[k]
        printf "\"failed\":%d,\"closed_idle\":%d,", failed[k], closed[k]
        printf "\"told_ms\":%s,\"first_new_ms\":%s,", ms(told[k], k), ms(first[k], k)
        # Within a tenth of a second of the end of what was looked at, it may have gone on for ever.
        printf "\"last_old_ms\":%s,\"old_to_the_end\":%d,", ms(last[k], k), (last[k] > until[k] - 1e5)
        printf "\"old_after_swap\":%d,\"p99_before_us\":%s,", stale[k], p99(k, "before")
        printf "\"p99_during_us\":%s,\"p99_after_us\":%s,", p99(k, "during"), p99(k, "after")
        printf "\"p99_rest_us\":%s}\n", p99(k, "rest")
    }
    if (elsewhere) printf "fault: %d requests failed before any rotation or after the last\n", elsewhere >"/dev/stderr"
}
