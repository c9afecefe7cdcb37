#!/usr/bin/env bash
# The scene of tests/chaos.rs at length: load while services die, stall and reset, certificates are renewed, removed and
# broken, callers change, the clock leaps and applications go away.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    cat <<HELP
Usage: benches/chaos/run.sh [REQUESTS [SEED]]

Makes so many requests, 1,000,000 unless said otherwise, and prints what became of them: answers under a wrong
certificate, requests that passed though their caller might not, requests that were sent twice, panics, memory and
descriptors before and after. Ends with 1 if any of that is not as it must be. A seed repeats what a run did, as far as
the system's scheduling allows.
HELP
}

case "${1:-}" in
-h | --help) usage; exit 0 ;;
esac
export CHAOS_REQUESTS=${1:-1000000}
[[ "$CHAOS_REQUESTS" =~ ^[0-9]+$ ]] || { usage >&2; exit 2; }
if [[ -n "${2:-}" ]]; then export CHAOS_SEED=$2; fi

exec cargo test --profile chaos --test chaos -- --nocapture
