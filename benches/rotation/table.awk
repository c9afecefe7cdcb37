# A row for each kind of rotation, out of lines of JSON without their punctuation: medians and the worst.

function sorted(name, key,    i, j, k, t) {
    k = split(values[name, key], list, " ")
    for (i = 2; i <= k; i++) for (j = i; j > 1 && list[j - 1] + 0 > list[j] + 0; j--) {
        t = list[j]; list[j] = list[j - 1]; list[j - 1] = t
    }
    return k
}
# Median and worst.
function both(name, key, form,    k, middle) {
    k = sorted(name, key)
    if (!k) return "–"
    middle = k % 2 ? list[(k + 1) / 2] : (list[k / 2] + list[k / 2 + 1]) / 2
    return sprintf(form " / " form, middle, list[k])
}
{
    for (i = 1; i < NF; i += 2) row[$i] = $(i + 1)
    key = row["proxy"] ", " row["how"]
    gsub("_", " ", key)
    if (!(key in rotations)) order[++kinds] = key
    rotations[key]++
    for (name in row) if (row[name] != "null") values[name, key] = values[name, key] " " row[name]
    if (row["p99_after_us"] != "null" && row["p99_before_us"] + 0)
        values["ratio", key] = values["ratio", key] sprintf(" %.2f", row["p99_after_us"] / row["p99_before_us"])
    failed[key] += row["failed"]; closed[key] += row["closed_idle"]; stale[key] += row["old_after_swap"]
    endless[key] += row["old_to_the_end"]; never[key] += row["first_new_ms"] == "null"
}
END {
    print "| proxy | rotations | failed | of them closed idle | first under the new, ms | last under an old, ms | under an old after the swap | p99 before, µs | p99 after, µs | after to before |"
    print "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for (i = 1; i <= kinds; i++) {
        key = order[i]
        printf "| %s | %d | %d | %d | ", key, rotations[key], failed[key], closed[key]
        printf "%s%s | ", both("first_new_ms", key, "%.1f"), never[key] ? " (never in " never[key] ")" : ""
        printf "%s%s | ", both("last_old_ms", key, "%.1f"), endless[key] ? " (goes on in " endless[key] ")" : ""
        printf "%d | %s | %s | %s |\n", stale[key], \
            both("p99_before_us", key, "%d"), both("p99_after_us", key, "%d"), both("ratio", key, "%.2f")
    }
}
