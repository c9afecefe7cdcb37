# shellcheck shell=bash
# What the scripts of tests/interop and benches/compare share: processes, packages, a throw-away PKI made by
# openssl, and nginx. Everything goes below $WORK, which the script sets.

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# ── Processes ───────────────────────────────────────────────────────────────────────────────────────────────────

declare -A PIDS=()

# start NAME COMMAND…: in the background, its output in WORK/NAME.log. When, in microseconds, is left in STARTED.
start() {
    local name="$1"
    shift
    STARTED=${EPOCHREALTIME/[.,]/}
    "$@" >"$WORK/$name.log" 2>&1 &
    PIDS[$name]=$!
}

stop() {
    local pid="${PIDS[$1]:-}"
    [[ -n "$pid" ]] || return 0
    unset "PIDS[$1]"
    kill -TERM "$pid" 2>/dev/null || true
    for _ in {1..50}; do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

stop_all() {
    local name
    for name in "${!PIDS[@]}"; do stop "$name"; done
}

# listens PORT: whether something accepts connections on it.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_port NAME PORT: until something accepts, NAME has died, or ten seconds have passed.
wait_port() {
    for _ in {1..1000}; do
        if listens "$2"; then return 0; fi
        kill -0 "${PIDS[$1]}" 2>/dev/null || break
        sleep 0.01
    done
    say "$1 does not listen on port $2; the end of its log:"
    tail -n 20 "$WORK/$1.log" >&2
    return 1
}

# is_ready ADMIN_PORT: what Relais says of itself. Asked by the shell alone: a process for each question would take a good
# part of a core from a start that is being timed.
is_ready() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
        read -r -t 1 line <&3
        [[ "$line" == "HTTP/1.1 200 "* ]]
    ) 2>/dev/null
}

# wait_relais ADMIN_PORT: until Relais says that it is ready.
wait_relais() {
    while kill -0 "${PIDS[relais]}" 2>/dev/null; do
        if is_ready "$1"; then return 0; fi
        ((${EPOCHREALTIME/[.,]/} - STARTED < 30000000)) || break
        sleep 0.01
    done
    say "relais does not become ready; the end of its log:"
    tail -n 20 "$WORK/relais.log" >&2
    return 1
}

# ── Packages ────────────────────────────────────────────────────────────────────────────────────────────────────

# Runs a command as root, with sudo where that is needed.
as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "error: root or sudo is needed to run: $*"
        return 1
    fi
}

# Runs apt-get unattended, waiting for another one to finish.
apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 -qq "$@" >&2; }

# install_packages PACKAGE…: from the system's own repositories. Services that a package brings are not started, now or
# at the next start of the machine: nothing here uses them, and port 80 may be somebody else's.
install_packages() (
    policy=/usr/sbin/policy-rc.d
    say "installing $*"
    if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then apt update || exit; fi
    if [[ ! -e "$policy" ]]; then
        trap 'as_root rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM
        # 101: starting services is forbidden (invoke-rc.d(8)).
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    # Lists grow old: what they name may have been replaced since.
    apt install -y --no-install-recommends "$@" || { apt update && apt install -y --no-install-recommends "$@"; } || exit
    if command -v systemctl >/dev/null; then
        for package in "$@"; do as_root systemctl disable --quiet "$package" 2>/dev/null || true; done
    fi
)

# need COMMAND PACKAGE: installs a package by name when its command is missing.
need() {
    # nginx and others live in sbin, which is not in everybody's PATH.
    case ":$PATH:" in *:/usr/sbin:*) ;; *) PATH="$PATH:/usr/sbin" ;; esac
    command -v "$1" >/dev/null && return 0
    command -v apt-get >/dev/null ||
        die "'$1' is missing, and this is not a Debian or Ubuntu system: install it (there: package '$2') and run again"
    install_packages "$2" || die "the package '$2' cannot be installed: install it, or whatever brings '$1', and run again"
    hash -r
    command -v "$1" >/dev/null || die "the package '$2' brought no '$1'"
}

# ── PKI ─────────────────────────────────────────────────────────────────────────────────────────────────────────

# finess N: the N-th made-up FINESS number: a letter in second place, and a valid Luhn key.
finess() {
    local characters sum=0 i value
    printf -v characters '0B%06d' "$1"
    for ((i = 0; i < 8; i++)); do
        value=${characters:i:1}
        if [[ "$value" == B ]]; then value=2; fi
        # The key is the ninth character, so every second one counting from the eighth is doubled.
        if ((i % 2 == 1)); then
            ((value *= 2, value > 9 && (value -= 9))) || true
        fi
        ((sum += value)) || true
    done
    echo "$characters$(((10 - sum % 10) % 10))"
}

# key NAME [OPTIONS…]: a private key, RSA-2048 unless options of `openssl genpkey` say otherwise.
key() {
    local name="$1"
    shift
    if ((!$#)); then set -- -algorithm RSA -pkeyopt rsa_keygen_bits:2048; fi
    openssl genpkey -quiet "$@" -out "$WORK/pki/keys/$name.pem" 2>/dev/null ||
        openssl genpkey "$@" -out "$WORK/pki/keys/$name.pem" 2>/dev/null
}

# certificate SUBJECT EXTENSIONS KEY ISSUER [OPTIONS…], in PEM. Options are those of `openssl req`.
certificate() {
    local pki="$WORK/pki" issuer=()
    if [[ "$3" != "$4" ]]; then
        issuer=(-CA "$pki/$4.pem" -CAkey "$pki/keys/$4.pem")
    fi
    openssl req -x509 -new -utf8 -days 365 -config "$pki/extensions.cnf" -extensions "$2" -subj "$1" \
        -key "$pki/keys/$3.pem" "${issuer[@]}" "${@:5}"
}

# authorities PREFIX: a root and an issuing CA with IGC-Santé's TEST names, in PREFIXroot.pem, PREFIXissuing.pem and
# both together in PREFIXtrust.pem. What is there already is kept.
authorities() {
    local pki="$WORK/pki" prefix="$1" ca="/C=FR/O=ASIP-SANTE/OU=0002 187512751/OU=IGC-SANTE TEST"
    mkdir -p "$pki/keys"
    if [[ -s "$pki/${prefix}trust.pem" ]]; then return 0; fi
    cat >"$pki/extensions.cnf" <<'CNF'
[req]
distinguished_name = dn
prompt = no
[dn]
[ca]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[server_elsewhere]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = DNS:elsewhere.example
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[tenant]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
CNF
    key "${prefix}root"
    key "${prefix}issuing"
    certificate "$ca/CN=TEST AC RACINE IGC-SANTE ELEMENTAIRE" ca "${prefix}root" "${prefix}root" >"$pki/${prefix}root.pem"
    certificate "$ca/CN=TEST AC IGC-SANTE ELEMENTAIRE ORGANISATIONS" ca "${prefix}issuing" "${prefix}root" >"$pki/${prefix}issuing.pem"
    cat "$pki/${prefix}root.pem" "$pki/${prefix}issuing.pem" >"$pki/${prefix}trust.pem"
}

# server_certificate NAME EXTENSIONS ISSUER: NAME.pem with its issuer's certificate, its key in keys/NAME.pem.
server_certificate() {
    local pki="$WORK/pki"
    key "$1"
    certificate "/C=FR/ST=Test (75)/O=RELAIS TEST/CN=$1" "$2" "$1" "$3" >"$pki/$1.pem"
    cat "$pki/$3.pem" >>"$pki/$1.pem"
}

# ── nginx ───────────────────────────────────────────────────────────────────────────────────────────────────────

nginx_head() {
    if ((EUID == 0)); then echo "user root root;"; fi
    cat <<CNF
worker_processes 1;
worker_rlimit_nofile $(ulimit -n);
daemon off;
pid $WORK/$1.pid;
error_log stderr warn;
events { worker_connections $(($(ulimit -n) < 65536 ? $(ulimit -n) : 65536)); }
CNF
}

# nginx's temporary files belong in the work folder, whoever runs it.
nginx_paths() {
    local kind
    for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $WORK/$1.tmp/$kind;"; done
    mkdir -p "$WORK/$1.tmp"
}
