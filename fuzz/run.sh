#!/usr/bin/env bash
# Fuzzes every target for a while, and tells how many inputs were tried and what was found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
    cat <<HELP
Usage: fuzz/run.sh [SECONDS [TARGET…]]

Runs each target (all, if none is named) for so long: 600 seconds unless said otherwise, two at a time. Needs the nightly
toolchain and cargo-fuzz. What was found lies in fuzz/artifacts, and belongs into fuzz/corpus once it is mended: the
property tests try all that is there. Ends with 1 if something was found.
HELP
}

case "${1:-}" in
-h | --help) usage; exit 0 ;;
esac
seconds=${1:-600}
[[ "$seconds" =~ ^[0-9]+$ ]] || { usage >&2; exit 2; }
(($# == 0)) || shift
targets=("$@")
if ((${#targets[@]} == 0)); then
    for file in fuzz_targets/*.rs; do
        name=${file##*/}
        targets+=("${name%.rs}")
    done
fi

# Memory is what Rust's rules are relied upon for: the sanitiser would only make fewer inputs of it.
cargo +nightly fuzz build --sanitizer none --fuzz-dir .
programs=target/$(rustc -vV | sed -n 's/^host: //p')/release
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT

# fuzz TARGET: what it finds interesting is kept outside of the seeds, which are few on purpose.
fuzz() {
    local corpus=target/corpus/$1 artifacts=artifacts/$1/
    mkdir -p "$corpus" "$artifacts"
    # A single input that takes longer than half a minute, or two gigabytes, is a finding as well.
    "$programs/$1" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
        -artifact_prefix="$artifacts" "$corpus" "corpus/$1" >"$found/$1.log" 2>&1 || echo "$1" >>"$found/failed"
    local runs
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$found/$1.log")
    printf '%-16s %12s inputs, %s findings\n' "$1" "${runs:-?}" "$(find "$artifacts" -type f | wc -l)"
}

for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= 2)); do wait -n || true; done
    fuzz "$target" &
done
wait
if [[ -e "$found/failed" ]]; then
    while read -r target; do
        printf '\n── %s\n' "$target"
        grep -A12 'panicked\|ERROR' "$found/$target.log" | head -40
    done <"$found/failed"
    exit 1
fi
