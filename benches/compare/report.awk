# The tables of run.sh, and which targets are met, out of lines of "KEY VALUE…", each a measure.

function who(row,    name) {
    name = row["proxy"]
    if (row["upstream"]) name = name " " row["upstream"]
    if (row["workers"]) name = name " with " row["workers"] (row["workers"] == 1 ? " worker" : " workers")
    if (row["kind"]) name = name " " row["kind"]
    return name
}
function has(part, name, n) { return (part, name, n) in order_of }
function sorted(part, name, n, what,    i, j, k, t) {
    k = split(values[part, name, n, what], sample, " ")
    for (i = 2; i <= k; i++) for (j = i; j > 1 && sample[j - 1] + 0 > sample[j] + 0; j--) {
        t = sample[j]; sample[j] = sample[j - 1]; sample[j - 1] = t
    }
    return k
}
# The median, or nothing.
function median(part, name, n, what,    k) {
    k = sorted(part, name, n, what)
    if (!k) return ""
    return k % 2 ? sample[(k + 1) / 2] + 0 : (sample[k / 2] + sample[k / 2 + 1]) / 2
}
function spread(part, name, n, what, form,    k) {
    k = sorted(part, name, n, what)
    return sprintf(form "–" form, sample[1], sample[k])
}
function over(a, b) { return a == "" || b == "" || b + 0 == 0 ? "" : a / b }
function times(ratio) { return ratio == "" ? "–" : sprintf("%.2f×", ratio) }
function shown(value, form) { return value == "" ? "–" : sprintf(form, value) }
function with_commas(n,    text) {
    for (text = ""; n >= 1000; n = int(n / 1000)) text = sprintf(",%03d", n % 1000) text
    return n text
}
function heading(title, columns, alignment) { printf "## %s\n\n%s\n%s\n", title, columns, alignment }
# Whether a part was measured; its title and the head of its table.
function begin_part(part, title, columns, alignment) {
    if (!(part in parts)) return 0
    heading(title, columns, alignment)
    return 1
}

# verdict TARGET GOAL VALUE FORM LIMIT [AT_LEAST [IF_MET [IF_MISSED]]]: a row of the last table; nothing measured is no
# verdict, and a bound is one in one direction only.
function verdict(target, goal, value, form, limit, at_least, if_met, if_missed,    met) {
    if (value == "") met = "not measured"
    else if (at_least ? value >= limit : value <= limit) met = if_met ? if_met : "met"
    else met = if_missed ? if_missed : "**missed**"
    verdicts = verdicts sprintf("| %s | %s | %s | %s |\n", target, goal, shown(value, form), met)
}

{
    split("", row)
    for (i = 1; i < NF; i += 2) row[$i] = $(i + 1)
    part = row["part"]
    if (part == "run" || part == "end") { for (what in row) run[what] = row[what]; next }
    if (part == "path") { for (what in row) path[what] = row[what]; next }
    if (part == "crypto") { crypto = row["rsa_signature_us"] + row["key_exchange_us"]; for (what in row) alone[what] = row[what]; next }
    name = who(row); n = row["tenants"]
    if (!((part, name, n) in order_of)) {
        order_of[part, name, n] = ++cases
        case_part[cases] = part; case_who[cases] = name; case_n[cases] = n; case_proxy[cases] = row["proxy"]
    }
    parts[part] = 1
    for (what in row) values[part, name, n, what] = values[part, name, n, what] " " row[what]
    requests += row["requests"]
    if (n + 0 > many + 0) many = n
}

END {
    gsub("_", " ", run["machine"]); gsub("_", " ", run["tls"]); gsub("_", " ", run["versions"]); gsub("/", ", ", run["versions"])
    printf "# Relais beside its peers\n\n%s. %s.\n\n", run["machine"], run["versions"]
    printf "Medians of %d round%s of %d s, %d connections, the tenants in turn, answers of 1 KiB, %s, one worker each. ", \
        run["rounds"], run["rounds"] == 1 ? "" : "s", run["seconds"], run["connections"], run["tls"]
    printf "Access log to a file: %s (the bare forwarder and HAProxy have none). %s requests in %d min; wrong identities, failed requests and things that did not run: %s.\n\n", \
        run["access_log"], with_commas(requests), run["minutes"], run["faults"] ? "**" run["faults"] "**" : "none"

    if (begin_part("cpu", "CPU per request", \
        "| tenants | proxy | CPU µs/request | least–most | to bare | to nginx | req/s | p50 µs | p99 µs | connections opened | RSS MiB |", \
        "|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|")) cpu_table()
    if (begin_part("latency", "Latency at half of the saturating load", \
        "| tenants | req/s | proxy | p50 µs | p99 µs | least–most | p99 to nginx | worst µs | CPU µs/request |", \
        "|--:|--:|:--|--:|--:|--:|--:|--:|--:|")) latency_table()
    if (begin_part("http2", "HTTP/2 to the service", \
        "| tenants | proxy | CPU µs/request | least–most | to its better of h1 and h2 | req/s | p99 µs |", \
        "|--:|:--|--:|--:|--:|--:|--:|")) http2_table()
    if (begin_part("scaling", "Workers", \
        "| tenants | proxy | CPU µs/request | least–most | to one worker | req/s | to one worker |", "|--:|:--|--:|--:|--:|--:|--:|")) scaling_table()
    if (begin_part("memory", "Start and memory at rest", \
        "| tenants | proxy | from exec to ready ms | least–most | RSS MiB | KiB per tenant |", "|--:|:--|--:|--:|--:|--:|")) memory_table()
    if (begin_part("connections", "Memory of idle connections to the service", \
        "| proxy | connections | RSS MiB before | with them | KiB per connection |", "|:--|--:|--:|--:|--:|")) connections_table()
    if ("cold" in parts) handshakes_tables()
    verdicts_table()
}

function cpu_table(    i, n, name, cpu) {
    for (i = 1; i <= cases; i++) if (case_part[i] == "cpu") {
        n = case_n[i]; name = case_who[i]; cpu = median("cpu", name, n, "cpu_us_per_request")
        printf "| %s | %s | %.1f | %s | %s | %s | %.0f | %d | %d | %d | %.1f |\n", with_commas(n), name, cpu, \
            spread("cpu", name, n, "cpu_us_per_request", "%.1f"), times(over(cpu, median("cpu", "bare", n, "cpu_us_per_request"))), \
            times(over(cpu, median("cpu", "nginx", n, "cpu_us_per_request"))), median("cpu", name, n, "requests_per_second"), \
            median("cpu", name, n, "p50_us"), median("cpu", name, n, "p99_us"), \
            median("cpu", name, n, "upstream_connections_opened"), median("cpu", name, n, "rss_kib") / 1024
    }
    print ""
}
function latency_table(    i, n, name, p99) {
    for (i = 1; i <= cases; i++) if (case_part[i] == "latency") {
        n = case_n[i]; name = case_who[i]; p99 = median("latency", name, n, "p99_us")
        printf "| %s | %d | %s | %d | %d | %s | %s | %d | %.1f |\n", with_commas(n), median("latency", name, n, "rate"), name, \
            median("latency", name, n, "p50_us"), p99, spread("latency", name, n, "p99_us", "%d"), \
            times(over(p99, median("latency", "nginx", n, "p99_us"))), median("latency", name, n, "max_us"), \
            median("latency", name, n, "cpu_us_per_request")
    }
    print "\nRequests come at a constant rate, whether or not those before are answered; one that all connections are too busy for has its wait counted.\n"
}
function better(proxy, n,    h1, h2) {
    h1 = median("http2", proxy " h1", n, "cpu_us_per_request"); h2 = median("http2", proxy " h2", n, "cpu_us_per_request")
    return h1 == "" || (h2 != "" && h2 < h1) ? h2 : h1
}
function http2_table(    i, n, name, cpu) {
    for (i = 1; i <= cases; i++) if (case_part[i] == "http2") {
        n = case_n[i]; name = case_who[i]; cpu = median("http2", name, n, "cpu_us_per_request")
        printf "| %s | %s | %.1f | %s | %s | %.0f | %d |\n", with_commas(n), name, cpu, spread("http2", name, n, "cpu_us_per_request", "%.1f"), \
            times(over(cpu, better(case_proxy[i], n))), median("http2", name, n, "requests_per_second"), median("http2", name, n, "p99_us")
    }
    print ""
}
function scaling_table(    i, n, name, cpu, one) {
    for (i = 1; i <= cases; i++) if (case_part[i] == "scaling") {
        n = case_n[i]; name = case_who[i]; one = case_proxy[i] " with 1 worker"; cpu = median("scaling", name, n, "cpu_us_per_request")
        printf "| %s | %s | %.1f | %s | %s | %.0f | %s |\n", with_commas(n), name, cpu, spread("scaling", name, n, "cpu_us_per_request", "%.1f"), \
            times(over(cpu, median("scaling", one, n, "cpu_us_per_request"))), median("scaling", name, n, "requests_per_second"), \
            times(over(median("scaling", name, n, "requests_per_second"), median("scaling", one, n, "requests_per_second")))
    }
    if (run["cores"] < 6)
        printf "\nLoad, proxy and upstream share %d cores, so throughput cannot show what a second worker is worth. What it can be worth at most is told by CPU per request: twice the time, divided by what a request then costs.\n", run["cores"]
    print ""
}
# KiB that each tenant takes beyond the first.
function per_tenant(name, n) {
    if (n < 2 || !has("memory", name, n) || !has("memory", name, 1)) return ""
    return (median("memory", name, n, "rss_kib") - median("memory", name, 1, "rss_kib")) / (n - 1)
}
function memory_table(    i, n, name) {
    for (i = 1; i <= cases; i++) if (case_part[i] == "memory") {
        n = case_n[i]; name = case_who[i]
        printf "| %s | %s | %d | %s | %.1f | %s |\n", with_commas(n), name, median("memory", name, n, "ready_ms"), \
            spread("memory", name, n, "ready_ms", "%d"), median("memory", name, n, "rss_kib") / 1024, shown(per_tenant(name, n), "%.1f")
    }
    print "\nRelais says when it is ready; of the others it is when their port is open. nginx reads certificates when it needs them, at each handshake, and so holds none. Of its processes, which share their pages, it is the largest.\n"
}
function per_connection(name) {
    if (!has("connections", name, 1000)) return ""
    return over(median("connections", name, 1000, "rss_kib") - median("connections", name, 1000, "rss_before_kib"), median("connections", name, 1000, "open"))
}
function connections_table(    i, name) {
    for (i = 1; i <= cases; i++) if (case_part[i] == "connections") {
        name = case_who[i]
        printf "| %s | %d | %.1f | %.1f | %s |\n", name, median("connections", name, 1000, "open"), \
            median("connections", name, 1000, "rss_before_kib") / 1024, median("connections", name, 1000, "rss_kib") / 1024, shown(per_connection(name), "%.1f")
    }
    print "\n1,000 tenants had twenty requests each, on 16 connections that were then closed.\n"
}
function share(part, name, n,    full, resumed) {
    full = median(part, name, n, "full"); resumed = median(part, name, n, "resumed")
    return full == "" ? "" : over(resumed * 100, full + resumed)
}
function handshake_to(name) { return over(median("handshake", name " full", 1000, "cpu_us"), crypto) }
function handshakes_tables(    i, name) {
    heading("Handshakes", "| proxy | 1,000 cold at once: full | resumed | p99 ms | after idling: full | resumed | 64 requests at once on one cold tenant: full | resumed |", \
        "|:--|--:|--:|--:|--:|--:|--:|--:|")
    for (i = 1; i <= cases; i++) if (case_part[i] == "cold") {
        name = case_who[i]
        printf "| %s | %d | %d | %d | %s | %s | %s | %s |\n", name, median("cold", name, 1000, "full"), median("cold", name, 1000, "resumed"), \
            median("cold", name, 1000, "p99_us") / 1000, shown(median("after_idling", name, 1000, "full"), "%d"), shown(median("after_idling", name, 1000, "resumed"), "%d"), \
            shown(median("crowd", name, 1, "full"), "%d"), shown(median("crowd", name, 1, "resumed"), "%d")
    }
    print "\nBy what the upstream says of each connection that carried a request. The bare forwarder closes none for want of use.\n"
    print "| proxy | CPU of a full handshake µs | to bare | to signature and key exchange | of a resumed one µs | another tenant meanwhile: p50 ms | p99 ms | worst ms |"
    print "|:--|--:|--:|--:|--:|--:|--:|--:|"
    for (i = 1; i <= cases; i++) if (case_part[i] == "cold") {
        name = case_who[i]
        printf "| %s | %s | %s | %s | %s | %s | %s | %s |\n", name, shown(median("handshake", name " full", 1000, "cpu_us"), "%.0f"), \
            times(over(median("handshake", name " full", 1000, "cpu_us"), median("handshake", "bare full", 1000, "cpu_us"))), times(handshake_to(name)), \
            shown(median("handshake", name " resumed", 1000, "cpu_us"), "%.0f"), shown(over(median("stall", name, 1000, "p50_us"), 1000), "%.1f"), \
            shown(over(median("stall", name, 1000, "p99_us"), 1000), "%.1f"), shown(over(median("stall", name, 1000, "max_us"), 1000), "%.1f")
    }
    printf "\nAn RSA-2048 signature takes %.0f µs of CPU here and a key exchange %.0f µs. The other tenant has its connections open; its requests come at a constant rate, before, during and after the burst.\n\n", \
        alone["rsa_signature_us"], alone["key_exchange_us"]
}

function verdicts_table(    i, n, cpu, limits, list, k, two, stall) {
    split("1 100 1000", list, " "); split("0.95 0.90 0.80", limits, " ")
    for (i = 1; i <= 3; i++) {
        n = list[i]; cpu = median("cpu", "relais", n, "cpu_us_per_request")
        verdict("CPU per request to the bare forwarder, " with_commas(n) (n == 1 ? " tenant" : " tenants"), "≤ 1.10×", over(cpu, median("cpu", "bare", n, "cpu_us_per_request")), "%.2f×", 1.10)
    }
    for (i = 1; i <= 3; i++) {
        n = list[i]; cpu = median("cpu", "relais", n, "cpu_us_per_request")
        verdict("CPU per request to nginx, " with_commas(n) (n == 1 ? " tenant" : " tenants"), "≤ " limits[i] "×", over(cpu, median("cpu", "nginx", n, "cpu_us_per_request")), "%.2f×", limits[i])
    }
    for (i = 1; i <= 2; i++) {
        n = list[i]
        verdict("`http = \"auto\"` to the better of h1 and h2, " n (n == 1 ? " tenant" : " tenants"), "≤ 1.05×", over(median("http2", "relais auto", n, "cpu_us_per_request"), better("relais", n)), "%.2f×", 1.05)
    }
    for (i = 1; i <= 3; i++) {
        n = list[i]
        verdict("p99 at half of the saturating load to nginx, " with_commas(n) (n == 1 ? " tenant" : " tenants"), "≤ 1×", over(median("latency", "relais", n, "p99_us"), median("latency", "nginx", n, "p99_us")), "%.2f×", 1)
    }
    k = has("memory", "relais", 10000) ? 10000 : 1000
    verdict("memory of an idle loaded certificate (of " with_commas(k) ")", "≤ 8 KiB", per_tenant("relais", k), "%.1f KiB", 8)
    verdict("memory of an idle pooled connection", "≤ 40 KiB (aim 24)", per_connection("relais"), "%.1f KiB", 40)
    verdict("10,000 certificates loaded", "≤ 3 s", over(median("memory", "relais", 10000, "ready_ms"), 1000), "%.2f s", 3)
    verdict("memory with 10,000 certificates", "≤ 160 MiB", over(median("memory", "relais", 10000, "rss_kib"), 1024), "%.1f MiB", 160)
    stall = median("stall", "relais", 1000, "max_us")
    verdict("longest stall of a worker, 1,000 tenants cold at once (no longer than another tenant's worst answer)", "≤ 5 ms", over(stall, 1000), "%.1f ms", 5, 0, "met", "not shown")
    verdict("full handshakes of one cold tenant with 64 requests at once", "≤ 1", median("crowd", "relais", 1, "full"), "%d", 1)
    verdict("resumed share after connections were idle-closed", "≥ 95 %", share("after_idling", "relais", 1000), "%.1f %%", 95, 1)
    verdict("CPU of a full handshake to RSA signature and key exchange", "≤ 1.15×", handshake_to("relais"), "%.2f×", 1.15)
    two = over(median("scaling", "relais with 1 worker", 100, "cpu_us_per_request"), median("scaling", "relais with 2 workers", 100, "cpu_us_per_request"))
    if (run["cores"] >= 6)
        verdict("throughput of two workers to one", "≥ 1.8×", over(median("scaling", "relais with 2 workers", 100, "requests_per_second"), median("scaling", "relais with 1 worker", 100, "requests_per_second")), "%.2f×", 1.8, 1)
    else
        verdict("throughput of two workers to one, at most (by CPU per request)", "≥ 1.8×", two == "" ? "" : 2 * two, "%.2f×", 1.8, 1, "not contradicted")
    verdict("CPU per request at 10,000 tenants to 1", "≤ 1.6×", over(median("cpu", "relais", 10000, "cpu_us_per_request"), median("cpu", "relais", 1, "cpu_us_per_request")), "%.2f×", 1.6)
    verdict("selection, checkout and check-in", "≤ 300 ns", path["nanos"], "%.0f ns", 300)
    verdict("allocations of selection, checkout and check-in", "0", path["allocations"], "%d", 0)
    verdict("allocations that the gateway adds to a request, to those of a bare forwarder (at the worst)", "≤ 1×", path["added"], "%.2f×", 1)
    heading("Targets", "| target | goal | measured | |", "|:--|:--|--:|:--|")
    printf "%s", verdicts
}
