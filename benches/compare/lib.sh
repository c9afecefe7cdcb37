# shellcheck shell=bash
# What run.sh and figures.sh share: packages, a throw-away PKI, the upstream, the proxies, and how they are measured.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck disable=SC2034  # used by run.sh
HERE="$ROOT/benches/compare"

# Options that both scripts have, with their defaults.
WORK="$ROOT/target/compare"
RESULTS=""
PORT=18400
KEYS=64
TLS="TLSv1.2 TLSv1.3"
NGINX="${NGINX:-nginx}"
ACCESS_LOG=off
BUILD=1

# shellcheck disable=SC2034  # used by both
COMMON_HELP="  --work DIR         where the PKI, configurations and logs go (default: target/compare)
  --results DIR      where results go (default: WORK/results)
  --port P           first of nine ports used on 127.0.0.1 (default: $PORT)
  --tls VERSIONS     what the upstream speaks (default: \"$TLS\")
  --access-log       a line per request to a file, for the proxies that can
  --no-build         use target/release as it is

Environment:
  NGINX              the nginx to use (default: the one in PATH, installed with apt-get when there is none)
  RELAIS             the relais to measure (default: target/release/relais)
  RELAIS_SERVICE     lines for Relais's [services.dmp] section, such as 'tls = …'
  RELAIS_IDENTITIES  lines for its [identities] section"

# Reads the command line. An option that is not common goes to the script's own_option. Each returns how many words it
# took, 0 for an option that it does not have.
take_options() {
    local taken
    while (($#)); do
        taken=0
        common_option "$@" || taken=$?
        ((taken)) || own_option "$@" || taken=$?
        ((taken)) || { usage >&2; exit 2; }
        shift "$taken"
    done
}

common_option() {
    case "$1" in
    --work) WORK="$(mkdir -p "$2" && cd "$2" && pwd)"; return 2 ;;
    --results) RESULTS="$2"; return 2 ;;
    --port) PORT="$2"; return 2 ;;
    --tls) TLS="$2"; return 2 ;;
    --access-log) ACCESS_LOG=on; return 1 ;;
    --no-build) BUILD=0; return 1 ;;
    -h | --help) usage; exit 0 ;;
    *) return 0 ;;
    esac
}

# shellcheck source=tests/support/lib.sh
source "$ROOT/tests/support/lib.sh"

# ── Processes ───────────────────────────────────────────────────────────────────────────────────────────────────

# The process of NAME and its children: nginx works in a child.
processes() {
    local pid="${PIDS[$1]}"
    echo "$pid"
    pgrep -P "$pid" || true
}

# CPU time of NAME so far, all its threads, in nanoseconds.
cpu_ns() {
    local pid
    for pid in $(processes "$1"); do
        cat "/proc/$pid"/task/*/schedstat 2>/dev/null || true
    done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# memory_kib NAME FIELD: VmRSS or VmHWM, summed over the processes of NAME.
memory_kib() {
    local pid
    for pid in $(processes "$1"); do
        cat "/proc/$pid/status" 2>/dev/null || true
    done | awk -v field="$2:" '$1 == field { sum += $2 } END { print sum + 0 }'
}

# Makes VmHWM start again from VmRSS.
reset_peak() {
    local pid
    for pid in $(processes "$1"); do
        echo 5 >"/proc/$pid/clear_refs" 2>/dev/null || true
    done
}

# ── What must be there ──────────────────────────────────────────────────────────────────────────────────────────

prepare() {
    RESULTS="${RESULTS:-$WORK/results}"
    RELAIS="${RELAIS:-$ROOT/target/release/relais}"
    BARE="$ROOT/target/release/examples/bare-forwarder"
    LOAD="$ROOT/target/release/examples/load"
    UPSTREAM=$PORT UPSTREAM_H2=$((PORT + 1)) STATUS=$((PORT + 2))
    BARE_PORT=$((PORT + 3)) RELAIS_PORT=$((PORT + 4)) ADMIN_PORT=$((PORT + 5)) NGINX_PORT=$((PORT + 6)) HAPROXY_PORT=$((PORT + 7))
    # shellcheck disable=SC2034  # used by benches/rotation
    HAPROXY_ADMIN=$((PORT + 8))
    mkdir -p "$WORK" "$RESULTS"
    umask 077
    # Both ends of every connection are here: thousands of them at 1,000 tenants.
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    need openssl openssl
    need curl curl
    [[ "$NGINX" == */* ]] || need "$NGINX" nginx
    if ((BUILD)); then
        (cd "$ROOT" && cargo build --release --locked --bin relais --example bare-forwarder --example load)
    fi
    [[ -x "$BARE" && -x "$LOAD" ]] || die "no release build of the examples: run without --no-build"
    trap stop_all EXIT
    trap 'exit 130' INT TERM
}

# Whether the relais that was built can serve yet.
relais_serves() {
    [[ -x "$RELAIS" ]] && timeout 10 "$RELAIS" serve --help 2>/dev/null | grep -q -- --config
}

machine() {
    printf '%s, %s cores, Linux %s\n' \
        "$(awk -F': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)" "$(nproc)" "$(uname -r)"
}

# One "name version" a line.
versions() {
    if relais_serves; then timeout 10 "$RELAIS" --version || true; fi
    printf 'commit %s\n' "$(git -C "$ROOT" describe --always --dirty 2>/dev/null || echo unknown)"
    "$NGINX" -v 2>&1 | sed 's/^nginx version: //; s,/, ,'
    if command -v haproxy >/dev/null; then haproxy -v | awk 'NR == 1 { print "haproxy", $3 }'; fi
    rustc --version 2>/dev/null || true
}

# ── PKI ─────────────────────────────────────────────────────────────────────────────────────────────────────────

# pki N: a root, an issuing CA with IGC-Santé's TEST name, a server certificate, and N tenants' certificates.
# What is there already is kept. Tenants share KEYS keys, which is never right outside a bench.
pki() {
    local pki="$WORK/pki" n="$1" i
    mkdir -p "$pki/tenants"
    authorities ""
    [[ -s "$pki/server.pem" ]] || server_certificate server server issuing
    [[ -s "$pki/tenants-$n.txt" ]] && return 0
    say "making the certificates of $n tenants"
    for ((i = 1; i <= (n < KEYS ? n : KEYS); i++)); do
        [[ -s "$pki/keys/tenant$i.pem" ]] || key "tenant$i"
    done
    export -f tenant certificate finess
    export WORK KEYS
    seq 1 "$n" | xargs -P "$(nproc)" -I {} bash -c 'set -euo pipefail; tenant {}'
    for ((i = 1; i <= n; i++)); do finess "$i"; done >"$pki/tenants-$n.partial"
    # Every folder holds its own N and no others: how many are loaded is part of what is measured.
    mkdir -p "$pki/tenants-$n"
    sed "s|.*|$pki/tenants/&.pem|" "$pki/tenants-$n.partial" | xargs ln -f -t "$pki/tenants-$n"
    mv "$pki/tenants-$n.partial" "$pki/tenants-$n.txt"
}

# tenant N [FOLDER [OPTIONS…]]: the certificate of the N-th tenant, in a folder of the PKI.
tenant() {
    local pki="$WORK/pki" folder="${2:-tenants}" key="tenant$((($1 - 1) % KEYS + 1))" number file
    number="$(finess "$1")"
    file="$pki/$folder/$number.pem"
    [[ -s "$file" ]] && return 0
    certificate "/C=FR/ST=Test (75)/O=STRUCTURE $1/OU=1$number/CN=Test $1" tenant "$key" issuing "${@:3}" >"$file.partial"
    cat "$pki/issuing.pem" "$pki/keys/$key.pem" >>"$file.partial"
    mv "$file.partial" "$file"
}

# ── The upstream and the proxies ────────────────────────────────────────────────────────────────────────────────

# Answers 1 KiB on HTTP/1.1 and HTTP/2, and tells whose certificate it was shown. `/sink` reads a whole body before
# it answers with how much there was; `/big` is a file of 1 GiB if there is one.
start_upstream() {
    local body
    printf -v body '%*s' 1024 ''
    {
        nginx_head upstream
        cat <<CNF
http {
    access_log off;
    $(nginx_paths upstream)
    map \$ssl_client_s_dn \$client_ou { "~(?:^|,)OU=(?<ou>[^,]+)" \$ou; }
    keepalive_requests 100000000;
    keepalive_timeout 600s;
    client_max_body_size 0;
    client_body_buffer_size 64k;
    server {
        listen 127.0.0.1:$UPSTREAM ssl backlog=4096;
        listen 127.0.0.1:$UPSTREAM_H2 ssl http2 backlog=4096;
        ssl_certificate $WORK/pki/server.pem;
        ssl_certificate_key $WORK/pki/keys/server.pem;
        ssl_protocols $TLS;
        ssl_verify_client on;
        ssl_verify_depth 2;
        ssl_client_certificate $WORK/pki/trust.pem;
        ssl_session_cache shared:upstream:16m;
        add_header x-client-ou \$client_ou;
        add_header x-client-serial \$ssl_client_serial;
        add_header x-load-id \$http_x_load_id;
        default_type text/plain;
        root $WORK/files;
        location / { return 200 "${body// /x}"; }
        location ~ /sink\$ {
            rewrite ^ /ok break;
            proxy_pass http://127.0.0.1:$STATUS;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            add_header x-received \$request_length;
            add_header x-client-ou \$client_ou;
        }
        location ~ /big\$ { try_files /big =404; }
    }
    server {
        listen 127.0.0.1:$STATUS;
        location /ok { return 200 "received"; }
        location /status { stub_status; }
    }
}
CNF
    } >"$WORK/upstream.conf"
    start upstream "$NGINX" -p "$WORK" -c "$WORK/upstream.conf"
    wait_port upstream "$UPSTREAM" || exit 1
}

# Connections that the upstream has accepted so far, over TLS or for its status.
upstream_accepts() { curl -sS --max-time 5 "http://127.0.0.1:$STATUS/status" | awk 'NR == 3 { print $1 }'; }

# Each start_X TENANTS VERSION (h1 or h2) starts a proxy with one worker, in front of the upstream.

start_bare() {
    local upstream=$UPSTREAM h2=()
    if [[ "$2" == h2 ]]; then upstream=$UPSTREAM_H2 h2=(--h2); fi
    start bare "$BARE" --listen "127.0.0.1:$BARE_PORT" --upstream "127.0.0.1:$upstream" --workers 1 \
        --trust "$WORK/pki/trust.pem" --identities "$WORK/pki/tenants-$1" "${h2[@]}"
    wait_port bare "$BARE_PORT"
}

start_relais() {
    local upstream=$UPSTREAM access=off
    [[ "$2" == h1 ]] || upstream=$UPSTREAM_H2
    [[ "$ACCESS_LOG" == off ]] || access="$WORK/relais-access.log"
    cat >"$WORK/relais.toml" <<CNF
environment = "test"
workers = 1

[[listeners]]
address = "127.0.0.1:$RELAIS_PORT"

[identities]
directory = "$WORK/pki/tenants-$1"
${RELAIS_IDENTITIES:-}

[services.dmp]
url = "https://localhost:$upstream"
trust = "$WORK/pki/trust.pem"
${RELAIS_SERVICE:-}

[services.dmp.limits]
request_body = "2GiB"

[admin]
address = "127.0.0.1:$ADMIN_PORT"

[log]
access = "$access"
CNF
    start relais "$RELAIS" serve --config "$WORK/relais.toml"
    wait_relais "$ADMIN_PORT"
}

# nginx as well as it can be used: one upstream block per tenant, because a shared one mixes tenants' connections.
# `start_nginx TENANTS VERSION shared` makes that very mistake, to show that the load notices.
# shellcheck disable=SC2016  # nginx's variable
start_nginx() {
    local access=off target='$tenant'
    if [[ "${3:-}" == shared ]]; then target="t$(head -n 1 "$WORK/pki/tenants-$1.txt")"; fi
    [[ "$ACCESS_LOG" == off ]] || access="$WORK/nginx-access.log"
    {
        nginx_head nginx
        cat <<CNF
http {
    access_log $access;
    $(nginx_paths nginx)
    keepalive_requests 100000000;
    client_max_body_size 0;
    map_hash_max_size 16384;
    map \$http_x_finess \$tenant {
$(sed 's/.*/        & t&;/' "$WORK/pki/tenants-$1.txt")
    }
$(sed "s/.*/    upstream t& { server 127.0.0.1:$UPSTREAM; keepalive 64; keepalive_requests 100000000; keepalive_timeout 600s; }/" "$WORK/pki/tenants-$1.txt")
    server {
        listen 127.0.0.1:$NGINX_PORT backlog=4096;
        location / {
            if (\$tenant = "") { return 400; }
            proxy_pass https://$target;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_ssl_certificate $WORK/pki/tenants-$1/\$http_x_finess.pem;
            proxy_ssl_certificate_key $WORK/pki/tenants-$1/\$http_x_finess.pem;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
            proxy_ssl_verify on;
            proxy_ssl_verify_depth 2;
            proxy_ssl_name localhost;
            proxy_ssl_trusted_certificate $WORK/pki/trust.pem;
        }
    }
}
CNF
    } >"$WORK/nginx.conf"
    start nginx "$NGINX" -p "$WORK" -c "$WORK/nginx.conf"
    wait_port nginx "$NGINX_PORT"
}

# HAProxy: one backend per tenant, for the same reason.
start_haproxy() {
    local alpn="" upstream=$UPSTREAM
    if [[ "$2" == h2 ]]; then alpn="alpn h2" upstream=$UPSTREAM_H2; fi
    cat >"$WORK/haproxy.cfg" <<CNF
global
    nbthread 1
    maxconn 5000
    no log
    stats socket ipv4@127.0.0.1:$HAPROXY_ADMIN level admin
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    http-reuse always
frontend in
    bind 127.0.0.1:$HAPROXY_PORT
    use_backend t%[req.hdr(x-finess)]
$(sed "s|.*|backend t&\n    server s 127.0.0.1:$upstream ssl crt $WORK/pki/tenants-$1/&.pem ca-file $WORK/pki/trust.pem verify required sni str(localhost) verifyhost localhost pool-max-conn 64 $alpn|" "$WORK/pki/tenants-$1.txt")
CNF
    start haproxy haproxy -db -f "$WORK/haproxy.cfg"
    wait_port haproxy "$HAPROXY_PORT"
}

proxy_port() {
    case "$1" in
    bare) echo "$BARE_PORT" ;;
    relais) echo "$RELAIS_PORT" ;;
    nginx) echo "$NGINX_PORT" ;;
    haproxy) echo "$HAPROXY_PORT" ;;
    esac
}

# field NAME: a number out of the line of JSON on standard input.
field() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }
