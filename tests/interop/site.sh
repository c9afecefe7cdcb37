# shellcheck shell=bash
# The site of run.sh: certificates of tenants in every format, the servers, and the gateway in front of them.

# Tenants whose certificates are plain PEM bundles: numbers 1 to PLAIN.
PLAIN=20

# Tenants beyond those, by what is special about their certificate or its file.
declare -A SPECIAL=(
    [other_ca]=21 [p12_modern]=22 [p12_legacy]=23 [p12_no_password]=24 [pkcs8_aes]=25 [pkcs8_scrypt]=26
    [pkcs1]=27 [ec]=28 [der]=29 [p12_shared_password]=30 [traditional]=31
)

# A number for each server of the site, with which it is known below: its port is that much above the first.
declare -A SERVERS=(
    [relais]=0 [admin]=1
    [tls12]=2 [tls13]=3 [both]=4 [h2]=5 [h2_tls12]=6 [optional]=7 [resume12]=8 [resume13]=9 [open]=10
    [foreign]=11 [misnamed]=12 [plain]=13 [closed]=14
    [verify12]=15 [verify13]=16 [lax12]=17 [lax13]=18
)
PORT_COUNT=${#SERVERS[@]}

# The password of every encrypted file, with what shells and PKCS#12's UTF-16 could stumble over.
PASSWORD='Clé n° 1 "à" $HOME'

port() { echo $((FIRST_PORT + SERVERS[$1])); }

# Whether something listens on one of the ports from $1 on.
any_taken() {
    local one
    for ((one = $1; one < $1 + PORT_COUNT; one++)); do
        if listens "$one"; then return 0; fi
    done
    return 1
}

# choose_ports FIRST: those from FIRST on, or the first free ones when it is empty.
choose_ports() {
    FIRST_PORT="${1:-18500}"
    while any_taken "$FIRST_PORT"; do
        [[ -z "$1" ]] || die "a port from $FIRST_PORT to $((FIRST_PORT + PORT_COUNT - 1)) is taken: choose others with --port"
        FIRST_PORT=$((FIRST_PORT + PORT_COUNT))
        ((FIRST_PORT < 30000)) || die "there are not $PORT_COUNT consecutive free ports below 30000"
    done
}

# ── Certificates ────────────────────────────────────────────────────────────────────────────────────────────────

# tenant_of NAME: the FINESS number of a special tenant.
tenant_of() { finess "${SPECIAL[$1]}"; }

# dn FINESS: the subject of a tenant's certificate, in the order of RFC 4514, as nginx writes it.
dn() { echo "CN=Logiciel de test,OU=1$1,O=STRUCTURE $1,ST=Test (69),C=FR"; }

# tenant FINESS [ISSUER [KEY_OPTIONS…]]: the certificate FINESS.pem with its issuer's, the key in keys/FINESS.pem.
tenant() {
    local number="$1" issuer="${2:-issuing}"
    shift $(($# > 2 ? 2 : $#))
    key "$number" "$@"
    certificate "/C=FR/ST=Test (69)/O=STRUCTURE $number/OU=1$number/CN=Logiciel de test" tenant "$number" "$issuer" >"$WORK/pki/$number.pem"
    cat "$WORK/pki/$issuer.pem" >>"$WORK/pki/$number.pem"
}

# export_p12 FINESS OUT PASSWORD_FILE [OPTIONS…]
export_p12() {
    local number="$1" out="$2" password="$3"
    shift 3
    openssl pkcs12 -export -in "$WORK/pki/$number.pem" -inkey "$WORK/pki/keys/$number.pem" -out "$out" \
        -passout "file:$password" "$@"
}

# Debian 13 and later keep RC2 and its like in a package of its own.
need_legacy_algorithms() {
    if openssl list -providers -provider legacy >/dev/null 2>&1; then return 0; fi
    command -v apt-get >/dev/null && install_packages openssl-provider-legacy && return 0
    die "openssl has no legacy provider: install it (Debian: openssl-provider-legacy) and run again"
}

make_certificates() {
    local pki="$WORK/pki" certs="$WORK/certs" i number
    authorities ""
    authorities other-
    server_certificate server server issuing
    server_certificate foreign server other-issuing
    server_certificate misnamed server_elsewhere issuing
    mkdir -p "$certs"
    for ((i = 1; i <= PLAIN; i++)); do
        number="$(finess "$i")"
        tenant "$number"
        cat "$pki/$number.pem" "$pki/keys/$number.pem" >"$certs/$number.pem"
    done
    make_special_certificates
}

# Each in a folder of its own, as structures are kept apart.
make_special_certificates() {
    local name
    printf '%s\n' "$PASSWORD" >"$WORK/passwords"
    need_legacy_algorithms
    for name in "${!SPECIAL[@]}"; do
        mkdir -p "$WORK/certs/$name"
        special "$name" "$(tenant_of "$name")"
    done
}

# special NAME FINESS
special() {
    local made="$WORK/pki/$2.pem" key="$WORK/pki/keys/$2.pem" put="$WORK/certs/$1/$2" pass="$WORK/passwords"
    case "$1" in
    other_ca) tenant "$2" other-issuing ;;
    ec) tenant "$2" issuing -algorithm EC -pkeyopt ec_paramgen_curve:P-256 ;;
    *) tenant "$2" ;;
    esac
    case "$1" in
    other_ca) cat "$made" "$key" >"$put.pem" ;;
    ec)
        cp "$made" "$put.crt"
        # The form that openssl wrote for decades: parameters, then SEC1.
        { openssl ecparam -name prime256v1 && openssl pkey -in "$key" -traditional; } >"$put.key"
        ;;
    der)
        openssl x509 -in "$made" -outform DER -out "$put.der"
        openssl pkey -in "$key" -outform DER -out "$put.key"
        cp "$WORK/pki/issuing.pem" "$WORK/certs/$1/issuing.crt"
        ;;
    p12_modern)
        export_p12 "$2" "$put.p12" "$pass" -name "$2"
        cp "$pass" "$put.p12.password"
        ;;
    p12_legacy)
        export_p12 "$2" "$put.pfx" "$pass" -legacy -name "$2"
        cp "$pass" "$put.pfx.password"
        ;;
    p12_no_password)
        echo >"$WORK/nothing.tmp"
        export_p12 "$2" "$put.p12" "$WORK/nothing.tmp"
        ;;
    # Opened with the password of [identities]; the whole chain is in it, root included.
    p12_shared_password) export_p12 "$2" "$put.p12" "$pass" -CAfile "$WORK/pki/trust.pem" -chain ;;
    *)
        cp "$made" "$put.crt"
        cp "$pass" "$put.key.password"
        case "$1" in
        pkcs1) openssl pkey -in "$key" -traditional -out "$put.key" ;;
        pkcs8_aes) openssl pkcs8 -topk8 -in "$key" -out "$put.key" -v2 aes-256-cbc -passout "file:$pass" ;;
        pkcs8_scrypt) openssl pkcs8 -topk8 -in "$key" -out "$put.key" -scrypt -passout "file:$pass" ;;
        traditional) openssl pkey -in "$key" -traditional -aes256 -out "$put.key" -passout "file:$pass" ;;
        esac
        ;;
    esac
}

# ── Servers ─────────────────────────────────────────────────────────────────────────────────────────────────────

# site NAME LISTEN DIRECTIVES: one server of nginx.
site() {
    cat <<CNF
    server {
        listen 127.0.0.1:$(port "$1") $2;
        $3
        # Which tenant the path named, and whose certificate was seen.
        location /who { return 200 "asked=\$arg_tenant seen=\$ssl_client_s_dn\n"; }
        location /files/ {
            dav_methods PUT;
            alias $WORK/files/;
        }
        location / { return 404; }
    }
CNF
}

# nginx knows the root alone: that the issuing authority's certificate is shown as well is part of what is checked.
nginx_configuration() {
    nginx_head nginx
    cat <<CNF
http {
    access_log off;
    $(nginx_paths nginx)
    default_type application/octet-stream;
    client_max_body_size 0;
    keepalive_timeout 120s;
    ssl_certificate $WORK/pki/server.pem;
    ssl_certificate_key $WORK/pki/keys/server.pem;
    ssl_client_certificate $WORK/pki/root.pem;
    ssl_verify_client on;
    ssl_verify_depth 2;
    ssl_session_cache shared:sessions:1m;
    ssl_protocols TLSv1.2 TLSv1.3;
    add_header x-client-dn \$ssl_client_s_dn always;
    add_header x-client-verify \$ssl_client_verify always;
    add_header x-tls \$ssl_protocol always;
    add_header x-http \$server_protocol always;
    add_header x-resumed \$ssl_session_reused always;
    add_header x-connection \$connection always;
$(site tls12 ssl "ssl_protocols TLSv1.2;")
$(site tls13 ssl "ssl_protocols TLSv1.3;")
$(site both ssl "")
$(site h2 "ssl http2" "")
$(site h2_tls12 "ssl http2" "ssl_protocols TLSv1.2;")
$(site optional ssl "ssl_verify_client optional_no_ca;")
$(site resume12 ssl "ssl_protocols TLSv1.2; keepalive_timeout 0;")
$(site resume13 ssl "ssl_protocols TLSv1.3; keepalive_timeout 0;")
$(site open ssl "ssl_verify_client off;")
$(site foreign ssl "ssl_certificate $WORK/pki/foreign.pem; ssl_certificate_key $WORK/pki/keys/foreign.pem;")
$(site misnamed ssl "ssl_certificate $WORK/pki/misnamed.pem; ssl_certificate_key $WORK/pki/keys/misnamed.pem;")
$(site plain "" "")
}
CNF
}

start_nginx() {
    # Those that nginx -s would find do not matter: each has a work folder of its own.
    start nginx "$NGINX" -p "$WORK" -c "$WORK/nginx.conf"
    wait_port nginx "$(port plain)" || die "nginx does not start"
}

start_servers() {
    local verify=(-CAfile "$WORK/pki/root.pem" -Verify 4 -verify_return_error)
    mkdir -p "$WORK/files"
    nginx_configuration >"$WORK/nginx.conf"
    start_nginx
    s_server verify12 -tls1_2 "${verify[@]}"
    s_server verify13 -tls1_3 "${verify[@]}"
    s_server lax12 -tls1_2
    s_server lax13 -tls1_3
}

# s_server NAME OPTIONS…: answers every request with a page about the connection.
s_server() {
    local name="$1"
    shift
    start "$name" openssl s_server -accept "127.0.0.1:$(port "$name")" -www -cert "$WORK/pki/server.pem" \
        -cert_chain "$WORK/pki/issuing.pem" -key "$WORK/pki/keys/server.pem" "$@"
    wait_port "$name" "$(port "$name")" || die "openssl s_server does not start"
}

# ── The gateway ─────────────────────────────────────────────────────────────────────────────────────────────────

# service NAME SERVER [LINES]
service() {
    cat <<CNF

[services.$1]
url = "https://localhost:$(port "$2")"
address = "127.0.0.1:$(port "$2")"
trust = "pki/root.pem"
${3:-}
[services.$1.limits]
request_body = "1GiB"
CNF
}

relais_configuration() {
    cat <<CNF
environment = "test"

[[listeners]]
address = "127.0.0.1:$(port relais)"

[identities]
directory = "certs"
password_file = "passwords"

[admin]
address = "127.0.0.1:$(port admin)"

[log]
access = "access.log"
CNF
    local name
    for name in "${!SERVERS[@]}"; do
        case "$name" in
        relais | admin | open) ;;
        *) service "${name/_/-}" "$name" ;;
        esac
    done
    service only12 both 'tls = "1.2"'
    service only12-at-tls13 tls13 'tls = "1.2"'
    service h1-at-h2 h2 'http = "h1"'
    service h2-at-h2 h2 'http = "h2"'
    service h2-at-h2-tls12 h2_tls12 'http = "h2"'
    service h2-at-h1 both 'http = "h2"'
    service anonymous open 'certificate = "none"'
    service not-asked open
    service patient both 'retry = "idempotent"'
}

start_relais() {
    relais_configuration >"$WORK/relais.toml"
    start relais "$RELAIS" serve --config "$WORK/relais.toml"
    wait_relais "$(port admin)" || die "relais does not start"
}
