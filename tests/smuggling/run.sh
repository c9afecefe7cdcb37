#!/usr/bin/env bash
# The same payloads to Relais, nginx and HAProxy, and what reaches the service behind each, as a table.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$HERE/../.." && pwd)"
# shellcheck source=tests/support/lib.sh
source "$ROOT/tests/support/lib.sh"

LIMIT=600
TABLE=""

usage() {
    cat <<HELP
Usage: tests/smuggling/run.sh [OPTIONS]

Sends bytes that two readers could take for different requests to Relais, nginx and HAProxy, each followed by a plain
request on the same connection, and prints what a service behind each saw of them. The exit code is 1 if Relais passed on
what was not plainly sent. Missing tools are installed with apt-get.

Options:
  --update           write the table to docs/smuggling.md
  --time-limit S     give up after so many seconds, builds and packages not counted (default: $LIMIT)
  -h, --help         this text
HELP
}

while (($#)); do
    case "$1" in
    --update) TABLE="$ROOT/docs/smuggling.md" ;;
    --time-limit) LIMIT="${2:?--time-limit wants seconds}"; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done

need nginx nginx
need haproxy haproxy
cd "$ROOT"
cargo build --locked --quiet --example smuggling
grid="$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug/examples/smuggling"
if [[ -z "$TABLE" ]]; then exec timeout "$LIMIT" "$grid"; fi

rows="$(timeout "$LIMIT" "$grid")"
cat >"$TABLE" <<HEAD
# What can be read in two ways

Each row is a payload that is sent as bytes on one connection, with a plain request (the marker) right behind it. The
service behind each proxy reads strictly, and writes down what it is sent. *Plainly sent* is the number of requests of the
payload that everybody reads alike; where it is 0, the payload should be refused.
*Broken off* means that the beginning of a request reached the service and that it was never completed, so that the service
has no request.
**(!)** marks what is more than was plainly sent. For Relais there must be none, of which \`cargo test --test smuggling\`
sees to it. For the others it is no verdict: a server may take a bare LF for the end of a line, for instance (RFC 9112
section 2.2), and they have other tasks. They run with the configuration of a plain reverse proxy, as Debian packages them.

Made by \`tests/smuggling/run.sh --update\`; what is sent is in \`tests/smuggling/payloads.rs\` and \`frames.rs\`.

HEAD
printf '%s\n' "$rows" >>"$TABLE"
