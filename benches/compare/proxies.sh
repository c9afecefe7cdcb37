# shellcheck shell=bash
# The upstream, and the proxies in front of it. Each start_X TENANTS VERSION starts one: TENANTS names a folder and a list
# of the PKI, VERSION is h1, h2 or auto, what it speaks to the upstream. With these in common:

# Threads, or nginx's processes, that serve requests.
WORKERS=1
# How long a connection to the upstream that is not used is kept; of no concern to the bare forwarder, which keeps all.
IDLE_TIMEOUT=600s

# Answers 1 KiB on HTTP/1.1 and HTTP/2, as the proxy chooses, and tells whose certificate it was shown, and on the first
# answer of a connection whether its handshake was full. `/sink` reads a whole body before it answers with how much there
# was; `/big` is a file of 1 GiB if there is one.
start_upstream() {
    local body workers=1
    # Where there is room, it must not be what two workers of a proxy wait for.
    (($(nproc) < 6)) || workers=3
    printf -v body '%*s' 1024 ''
    {
        nginx_head upstream | sed "s/^worker_processes .*/worker_processes $workers;/"
        cat <<CNF
http {
    access_log off;
    $(nginx_paths upstream)
    map \$ssl_client_s_dn \$client_ou { "~(?:^|,)OU=(?<ou>[^,]+)" \$ou; }
    map \$connection_requests\$ssl_session_reused \$handshake { "1." full; "1r" resumed; }
    keepalive_requests 100000000;
    keepalive_timeout 600s;
    client_max_body_size 0;
    client_body_buffer_size 64k;
    server {
        listen 127.0.0.1:$UPSTREAM ssl http2 backlog=4096;
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
        add_header x-handshake \$handshake;
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

# Connections that are open to the upstream, without the one for its status.
upstream_connections() { curl -sS --max-time 5 "http://127.0.0.1:$STATUS/status" | awk 'NR == 1 { print $3 - 1 }'; }

# fresh_log NAME: where it is to write its access log; what was there is gone.
fresh_log() {
    mkdir -p "$WORK/access"
    rm -f "$WORK/access/$1.log"
    echo "$WORK/access/$1.log"
}

start_bare() {
    local h2=()
    if [[ "$2" == h2 ]]; then h2=(--h2); fi
    start bare "$BARE" --listen "127.0.0.1:$BARE_PORT" --upstream "127.0.0.1:$UPSTREAM" --workers "$WORKERS" \
        --trust "$WORK/pki/trust.pem" --identities "$WORK/pki/tenants-$1" "${h2[@]}"
    wait_port bare "$BARE_PORT"
}

start_relais() {
    local access=off tls="1.2+"
    case "$TLS" in TLSv1.2) tls="1.2" ;; TLSv1.3) tls="1.3" ;; esac
    # In a folder of its own, as logs have: Relais is told of every write in the folder of its configuration.
    [[ "$ACCESS_LOG" == off ]] || access="$(fresh_log relais)"
    cat >"$WORK/relais.toml" <<CNF
environment = "test"
workers = $WORKERS

[[listeners]]
address = "127.0.0.1:$RELAIS_PORT"

[identities]
directory = "$WORK/pki/tenants-$1"
${RELAIS_IDENTITIES:-}

[services.dmp]
url = "https://localhost:$UPSTREAM"
trust = "$WORK/pki/trust.pem"
tls = "$tls"
http = "$2"
pool.idle_timeout = "$IDLE_TIMEOUT"
${RELAIS_SERVICE:-}

[services.dmp.limits]
request_body = "2GiB"

[limits]
upstream_connections = 30000

[admin]
address = "127.0.0.1:$ADMIN_PORT"

[log]
access = "$access"
CNF
    start relais "$RELAIS" serve --config "$WORK/relais.toml"
    wait_relais "$ADMIN_PORT"
}

# nginx as well as it can be used: one upstream block per tenant, because a shared one mixes tenants' connections, and an
# access log that is written when there are 64 KiB of it.
# `start_nginx TENANTS VERSION shared` makes that very mistake, to show that the load notices.
# shellcheck disable=SC2016  # nginx's variable
start_nginx() {
    local access=off target='$tenant'
    if [[ "${3:-}" == shared ]]; then target="t$(head -n 1 "$WORK/pki/tenants-$1.txt")"; fi
    [[ "$ACCESS_LOG" == off ]] || access="$(fresh_log nginx) combined buffer=64k flush=1s"
    {
        nginx_head nginx | sed "s/^worker_processes .*/worker_processes $WORKERS;/"
        cat <<CNF
http {
    access_log $access;
    $(nginx_paths nginx)
    keepalive_requests 100000000;
    client_max_body_size 0;
    map_hash_max_size 65536;
    map \$http_x_finess \$tenant {
$(sed 's/.*/        & t&;/' "$WORK/pki/tenants-$1.txt")
    }
$(sed "s/.*/    upstream t& { server 127.0.0.1:$UPSTREAM; keepalive 64; keepalive_requests 100000000; keepalive_timeout $IDLE_TIMEOUT; }/" "$WORK/pki/tenants-$1.txt")
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
            proxy_ssl_protocols $TLS;
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

# HAProxy: one backend per tenant, for the same reason. It can log to a file only by a socket of syslog: it does not.
start_haproxy() {
    local alpn="http/1.1"
    if [[ "$2" == h2 ]]; then alpn="h2"; fi
    cat >"$WORK/haproxy.cfg" <<CNF
global
    nbthread $WORKERS
    maxconn 5000
    no log
    stats socket ipv4@127.0.0.1:$HAPROXY_ADMIN level admin
defaults
    mode http
    timeout connect 60s
    timeout client 600s
    timeout server 600s
    http-reuse always
frontend in
    bind 127.0.0.1:$HAPROXY_PORT backlog 4096
    use_backend t%[req.hdr(x-finess)]
$(sed "s|.*|backend t&\n    server s 127.0.0.1:$UPSTREAM ssl crt $WORK/pki/tenants-$1/&.pem ca-file $WORK/pki/trust.pem verify required sni str(localhost) verifyhost localhost pool-max-conn 64 pool-purge-delay $IDLE_TIMEOUT alpn $alpn|" "$WORK/pki/tenants-$1.txt")
CNF
    start haproxy "$HAPROXY" -db -f "$WORK/haproxy.cfg"
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
