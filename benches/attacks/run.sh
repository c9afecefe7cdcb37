#!/usr/bin/env bash
# What attackers send in bulk, and what others notice of it.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck source=tests/support/lib.sh
source "$ROOT/tests/support/lib.sh"

PROFILE=release
LIMIT=1200
OPTIONS=()

usage() {
    cat <<HELP
Usage: benches/attacks/run.sh [OPTIONS]

Attacks a gateway with slowloris, rapid resets and floods of HTTP/2 while a plain caller is measured, and prints latency,
memory and descriptors before and during each attack as Markdown. Everything is on this machine: what the attackers
themselves cost is taken from the same cores.

Options:
  --only LIST        slowloris, rapid-reset, made-you-reset, continuation, settings, ping, empty-data (default: all)
  --seconds S        how long the caller is measured, before and during each attack (default: 10)
  --connections N    of slowloris (default: 5000)
  --streams N        of both kinds of resets (default: 100000)
  --quick            small numbers and a debug build, to try it out
  --time-limit S     give up after so many seconds, builds not counted (default: $LIMIT)
  -h, --help         this text
HELP
}

while (($#)); do
    case "$1" in
    --only | --seconds | --connections | --streams) OPTIONS+=("$1" "${2:?$1 wants a value}"); shift ;;
    --quick) PROFILE=debug OPTIONS+=(--seconds 2 --connections 200 --streams 5000) ;;
    --time-limit) LIMIT="${2:?--time-limit wants seconds}"; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done

cd "$ROOT"
# Both sides of each connection are on this machine, in two processes.
ulimit -n "$(ulimit -Hn)"
(($(ulimit -n) > 6000)) || say "few file descriptors are allowed ($(ulimit -n)): 5,000 connections do not fit"
build=(cargo build --locked --quiet)
if [[ "$PROFILE" == release ]]; then build+=(--release); fi
"${build[@]}" --bin relais
"${build[@]}" --example attack
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")/$PROFILE"
say "relais: $("$target/relais" --version), $(nproc) cores, $(uname -sr)"
timeout "$LIMIT" "$target/examples/attack" --relais "$target/relais" "${OPTIONS[@]}"
