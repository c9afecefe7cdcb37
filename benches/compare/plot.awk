# CPU per request by tenants and proxy, as SVG, out of lines of "KEY VALUE…", each a measure. It follows the reader's colour
# scheme; every bar has its number, so that nothing is told by colour alone.

function sorted(key,    i, j, k, t) {
    k = split(values[key], sample, " ")
    for (i = 2; i <= k; i++) for (j = i; j > 1 && sample[j - 1] + 0 > sample[j] + 0; j--) {
        t = sample[j]; sample[j] = sample[j - 1]; sample[j - 1] = t
    }
    return k
}
function median(key,    k) {
    k = sorted(key)
    return k % 2 ? sample[(k + 1) / 2] + 0 : (sample[k / 2] + sample[k / 2 + 1]) / 2
}
function with_commas(n,    text) {
    for (text = ""; n >= 1000; n = int(n / 1000)) text = sprintf(",%03d", n % 1000) text
    return n text
}
function text(x, y, class, anchor, content) {
    printf "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">%s</text>\n", x, y, class, anchor, content
}

BEGIN {
    split("bare relais nginx haproxy", order, " ")
    split("bare forwarder,Relais,nginx,HAProxy", names, ",")
    width = 760; height = 420; left = 56; right = 16; top = 96; bottom = 48
}
{
    split("", row)
    for (i = 1; i < NF; i += 2) row[$i] = $(i + 1)
    if (row["part"] == "run") { for (what in row) run[what] = row[what]; next }
    if (row["part"] != "cpu") next
    key = row["proxy"] SUBSEP row["tenants"]
    if (!(row["tenants"] in seen)) { seen[row["tenants"]] = 1; groups[++group_count] = row["tenants"] }
    if (!(key in values)) bars[row["tenants"]]++
    used[row["proxy"]] = 1
    values[key] = values[key] " " row["cpu_us_per_request"]
}
END {
    gsub("_", " ", run["machine"]); gsub("&", "\\&amp;", run["machine"]); gsub("<", "\\&lt;", run["machine"])
    for (key in values) if (median(key) > highest) highest = median(key)
    step = 1
    while (highest > step * 6) step = substr(step, 1, 1) == 2 ? step * 2.5 : step * 2
    ceiling = step * (int(highest / step) + 1)
    scale = (height - top - bottom) / ceiling

    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-labelledby=\"title\">\n", width, height, width, height
    print "<title id=\"title\">CPU time of a request in the proxy, by number of tenants</title>"
    print "<style>"
    print "text { font: 12px system-ui, -apple-system, \"Segoe UI\", \"DejaVu Sans\", sans-serif; fill: #1f2328 }"
    print ".title { font-size: 16px; font-weight: 600 } .quiet { fill: #59636e } .value { font-size: 11px }"
    print ".paper { fill: #ffffff } .grid { stroke: #d1d9e0 } .axis { stroke: #59636e }"
    print ".bare { fill: #818b98 } .relais { fill: #0969da } .nginx { fill: #bc4c00 } .haproxy { fill: #8250df }"
    print "@media (prefers-color-scheme: dark) {"
    print "text { fill: #f0f6fc } .quiet { fill: #9198a1 } .paper { fill: #0d1117 } .grid { stroke: #3d444d } .axis { stroke: #9198a1 }"
    print ".bare { fill: #7d8590 } .relais { fill: #4493f8 } .nginx { fill: #db6d28 } .haproxy { fill: #a371f7 }"
    print "}"
    print "</style>"
    printf "<rect width=\"%d\" height=\"%d\" class=\"paper\"/>\n", width, height
    text(left, 28, "title", "start", "CPU time of a request in the proxy, µs")
    text(left, 46, "quiet", "start", "HTTP/1.1 in, mutual TLS out, " run["connections"] " connections, 1 KiB; median of " run["rounds"] (run["rounds"] == 1 ? " round" : " rounds"))
    text(left, 62, "quiet", "start", run["machine"])

    x = left
    for (i = 1; i <= 4; i++) if (order[i] in used) {
        printf "<rect x=\"%.1f\" y=\"74\" width=\"11\" height=\"11\" class=\"%s\"/>\n", x, order[i]
        text(x + 16, 84, "", "start", names[i])
        x += 40 + 7 * length(names[i])
    }
    for (tick = 0; tick <= ceiling; tick += step) {
        y = height - bottom - tick * scale
        printf "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"%s\"/>\n", left, y, width - right, y, tick ? "grid" : "axis"
        text(left - 8, y + 4, "quiet", "end", tick)
    }
    if (!group_count) { print "</svg>"; exit }
    span = (width - left - right) / group_count
    for (g = 1; g <= group_count; g++) {
        n = groups[g]; bar = span * 0.8 / 4; if (bar > 48) bar = 48
        x = left + span * (g - 0.5) - bar * bars[n] / 2
        text(left + span * (g - 0.5), height - bottom + 20, "", "middle", with_commas(n) (n == 1 ? " tenant" : " tenants"))
        for (i = 1; i <= 4; i++) {
            key = order[i] SUBSEP n
            if (!(key in values)) continue
            tall = median(key) * scale
            printf "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"%s\"><title>%s, %s: %.1f µs</title></rect>\n", \
                x + 2, height - bottom - tall, bar - 4, tall, order[i], names[i], with_commas(n), median(key)
            text(x + bar / 2, height - bottom - tall - 5, "value", "middle", sprintf("%.1f", median(key)))
            x += bar
        }
    }
    print "</svg>"
}
