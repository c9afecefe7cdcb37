# shellcheck shell=bash
# The promises of run.sh.

PASSED=0
FAILED=0

# check PROMISE EXPECTED SEEN
check() {
    if [[ "$2" == "$3" ]]; then
        printf 'ok – %s\n' "$1"
        PASSED=$((PASSED + 1))
    else
        printf 'FAILED – %s\n    expected: %s\n    seen:     %s\n' "$1" "$2" "$3"
        FAILED=$((FAILED + 1))
    fi
    ((SECONDS < LIMIT)) || die "the time limit of $LIMIT s has passed"
}

summary() {
    if ((FAILED)); then
        say "the end of relais's log:"
        tail -n 20 "$WORK/relais.log" >&2
    fi
    echo "$PASSED passed, $FAILED failed"
    ((FAILED == 0))
}

# ── Asking ──────────────────────────────────────────────────────────────────────────────────────────────────────

STATUS=""

# ask FINESS PATH [CURL_OPTIONS…]: leaves the status in STATUS, head and body in files. Never fails: no answer is
# status 000.
ask() {
    local finess="$1" path="$2"
    shift 2
    : >"$WORK/answer.head"
    : >"$WORK/answer.body"
    STATUS="$(curl -sS --max-time 30 --noproxy '*' -H "X-Finess: $finess" -D "$WORK/answer.head" -o "$WORK/answer.body" \
        -w '%{http_code}' "$@" "http://127.0.0.1:$(port relais)$path" 2>>"$WORK/curl.log")" || true
}

# header NAME: its value in the last answer (after the head of a 100 Continue, if there was one).
header() { sed -n "s/^$1: *\(.*\)\r\$/\1/Ip" "$WORK/answer.head" | tail -n 1; }

# problem: the code of the last answer if Relais gave it, else its status and the start of its body.
problem() {
    if [[ "$(header content-type)" == application/problem+json ]]; then
        sed -n 's/.*"code":"\([a-z_]*\)".*/\1/p' "$WORK/answer.body"
    else
        echo "$STATUS $(head -c 200 "$WORK/answer.body" | tr '\n' ' ')"
    fi
}

# outcome [HEADER…]: the last answer's status, then values of headers; or why there is none.
outcome() {
    local values=("$STATUS") name
    if [[ "$STATUS" != 2* ]]; then
        problem
        return
    fi
    for name in "$@"; do values+=("$(header "$name")"); done
    local IFS='|'
    echo "${values[*]}"
}

# ── Promises ────────────────────────────────────────────────────────────────────────────────────────────────────

check_tls_versions() {
    local one
    one="$(finess 1)"
    ask "$one" /tls12/who
    check "nginx with TLS 1.2 alone sees the tenant's certificate" "200|TLSv1.2|SUCCESS|$(dn "$one")" "$(outcome x-tls x-client-verify x-client-dn)"
    ask "$one" /tls13/who
    check "nginx with TLS 1.3 alone sees the tenant's certificate" "200|TLSv1.3|SUCCESS|$(dn "$one")" "$(outcome x-tls x-client-verify x-client-dn)"
    ask "$one" /both/who
    check "nginx with both TLS versions is spoken to in TLS 1.3" "200|TLSv1.3|SUCCESS|$(dn "$one")" "$(outcome x-tls x-client-verify x-client-dn)"
    ask "$one" /only12/who
    check "a service with tls = \"1.2\" is spoken to in TLS 1.2 by a server with both" "200|TLSv1.2|$(dn "$one")" "$(outcome x-tls x-client-dn)"
    ask "$one" /only12-at-tls13/who
    check "a service with tls = \"1.2\" whose server has TLS 1.3 alone is upstream_protocol_error" upstream_protocol_error "$(problem)"
}

check_http_versions() {
    local one
    one="$(finess 2)"
    ask "$one" /h2/who
    check "nginx with HTTP/2 is spoken to in HTTP/1.1 while requests are few" "200|HTTP/1.1|$(dn "$one")" "$(outcome x-http x-client-dn)"
    ask "$one" /h2-at-h2/who
    check "a service with http = \"h2\" is spoken to in HTTP/2 over TLS 1.3" "200|HTTP/2.0|TLSv1.3|$(dn "$one")" "$(outcome x-http x-tls x-client-dn)"
    ask "$one" /h2-at-h2-tls12/who
    check "a service with http = \"h2\" is spoken to in HTTP/2 over TLS 1.2" "200|HTTP/2.0|TLSv1.2|$(dn "$one")" "$(outcome x-http x-tls x-client-dn)"
    ask "$one" /both/who
    check "nginx without HTTP/2 is spoken to in HTTP/1.1" "200|HTTP/1.1|$(dn "$one")" "$(outcome x-http x-client-dn)"
    ask "$one" /h1-at-h2/who
    check "a service with http = \"h1\" is spoken to in HTTP/1.1 by a server with both" "200|HTTP/1.1|$(dn "$one")" "$(outcome x-http x-client-dn)"
    ask "$one" /h2-at-h1/who
    check "a service with http = \"h2\" whose server has HTTP/1.1 alone is upstream_protocol_error" upstream_protocol_error "$(problem)"
    ask "$one" /both/who --http2-prior-knowledge
    check "an application may speak HTTP/2 to Relais" "200|HTTP/1.1|$(dn "$one")" "$(outcome x-http x-client-dn)"
}

check_client_certificates() {
    local one other service
    one="$(finess 3)"
    other="$(tenant_of other_ca)"
    ask "$one" /optional/who
    check "nginx that takes any certificate (optional_no_ca) sees the tenant's and finds it good" "200|SUCCESS|$(dn "$one")" "$(outcome x-client-verify x-client-dn)"
    ask "$other" /optional/who
    check "nginx that takes any certificate (optional_no_ca) sees that of another CA too" "200|$(dn "$other")" "$(outcome x-client-dn)"
    for service in tls12 tls13 h2; do
        ask "$other" "/$service/who"
        check "nginx's own refusal of a certificate of another CA passes through untouched ($service)" \
            "400 <center>The SSL certificate error</center>" \
            "$STATUS $(grep -o '<center>The SSL.*</center>' "$WORK/answer.body" | head -n 1)$(header proxy-status)"
    done
    ask "$one" /anonymous/who
    check "a service with certificate = \"none\" sees no certificate" "200|NONE|" "$(outcome x-client-verify x-client-dn)"
    ask "$one" /not-asked/who
    check "nginx that asks for no certificate is certificate_not_requested" certificate_not_requested "$(problem)"
}

# format NAME WHAT
format() {
    local number
    number="$(tenant_of "$1")"
    ask "$number" /both/who
    check "a tenant is served with $2" "200|$(dn "$number")" "$(outcome x-client-dn)"
}

check_key_formats() {
    format p12_modern "a PKCS#12 file of today's openssl (AES-256, HMAC-SHA-256) and its .password file"
    format p12_legacy "a PKCS#12 file made with -legacy (RC2, triple DES) and its .password file"
    format p12_shared_password "a PKCS#12 file with the whole chain and the password of [identities]"
    format p12_no_password "a PKCS#12 file with an empty password"
    format pkcs8_aes "a .crt and an encrypted PKCS#8 .key (PBKDF2, AES-256) and its .password file"
    format pkcs8_scrypt "a .crt and an encrypted PKCS#8 .key (scrypt) and its .password file"
    format pkcs1 "a .crt and a PKCS#1 .key (BEGIN RSA PRIVATE KEY)"
    format ec "a .crt and a SEC1 .key after EC PARAMETERS"
    format der "certificate and key in DER, and the issuer in a file of its own"
}

# everybody SERVICE ROUNDS: the plain tenants in turn, many at once, all rounds in one curl; how many answers there
# were, and how many of them under another's certificate.
everybody() {
    local i number
    for ((i = 1; i <= PLAIN; i++)); do
        number="$(finess "$i")"
        printf 'url = "http://127.0.0.1:%s/@%s/%s/who?tenant=%s&n=[1-%s]"\n' "$(port relais)" "$number" "$1" "$number" "$2"
    done >"$WORK/answer.urls"
    curl -sS --no-progress-meter --max-time 60 --noproxy '*' --parallel --parallel-max 16 -K "$WORK/answer.urls" 2>>"$WORK/curl.log" |
        awk '
            { asked = $1; seen = $0; sub(/^asked=/, "", asked); ou = "OU=1" asked ","; count++; who[asked] = 1 }
            index(seen, ou) == 0 || asked == "" { wrong++ }
            END { for (one in who) tenants++; printf "%d answers for %d tenants, %d under another certificate\n", count, tenants, wrong }' ||
        true
}

check_tenants() {
    local one two service first expected
    for service in both h2; do
        one="$(finess 4)" two="$(finess 5)"
        ask "$one" "/$service/who"
        first="$(header x-connection)"
        ask "$one" "/$service/who"
        check "a tenant's next request goes over the connection that is open ($service)" "200|$first" "$(outcome x-connection)"
        ask "$two" "/$service/who"
        check "another tenant's request goes over another connection ($service)" "200 yes" \
            "$STATUS $([[ "$(header x-connection)" != "$first" ]] && echo yes)"
    done
    for service in resume12 resume13; do
        one="$(finess 6)" two="$(finess 7)"
        ask "$one" "/$service/who"
        ask "$one" "/$service/who"
        check "a tenant's TLS session is resumed under its own certificate ($service)" "200|r|$(dn "$one")" "$(outcome x-resumed x-client-dn)"
        ask "$two" "/$service/who"
        check "a TLS session is not resumed for another tenant ($service)" "200|.|$(dn "$two")" "$(outcome x-resumed x-client-dn)"
    done
    expected="$((PLAIN * 50)) answers for $PLAIN tenants, 0 under another certificate"
    for service in tls12 both h2 h2-tls12 resume12 resume13; do
        check "$PLAIN interleaved tenants are each seen under their own certificate ($service)" "$expected" "$(everybody "$service" 50)"
    done
}

checksum() { sha256sum "$1" | cut -d' ' -f1; }

check_bodies() {
    local one service sent
    one="$(finess 8)"
    head -c $((64 * 1024 * 1024 + 7)) /dev/urandom >"$WORK/answer.sent"
    sent="$(checksum "$WORK/answer.sent")"
    for service in tls12 both h2; do
        ask "$one" "/$service/files/announced" -T "$WORK/answer.sent"
        check "64 MiB of announced length arrive intact ($service)" "201 $sent" "$STATUS $(checksum "$WORK/files/announced")"
        ask "$one" "/$service/files/announced"
        check "64 MiB come back intact ($service)" "200 $sent" "$STATUS $(checksum "$WORK/answer.body")"
        ask "$one" "/$service/files/chunked" -T - <"$WORK/answer.sent"
        check "64 MiB of unknown length arrive intact ($service)" "201 $sent" "$STATUS $(checksum "$WORK/files/chunked")"
        rm -f "$WORK/files/"*
    done
    rm -f "$WORK/answer.sent"
}

check_restarts() {
    local one service
    one="$(finess 9)"
    echo "a small body" >"$WORK/answer.sent"
    for service in both h2; do
        ask "$one" "/$service/who"
        stop nginx
        start_nginx
        ask "$one" "/$service/who"
        check "after nginx was restarted the next request is answered ($service)" "200|$(dn "$one")" "$(outcome x-client-dn)"
        stop nginx
        start_nginx
        ask "$one" "/$service/files/after-restart" -T "$WORK/answer.sent"
        check "after nginx was restarted the next upload arrives ($service)" 201 "$(outcome)"
        rm -f "$WORK/files/"*
        everybody "$service" 1 >/dev/null
        kill -HUP "${PIDS[nginx]}"
        sleep 1
        check "after nginx was reloaded every tenant is answered ($service)" \
            "$PLAIN answers for $PLAIN tenants, 0 under another certificate" "$(everybody "$service" 1)"
    done
    (
        for _ in {1..5}; do
            sleep 0.2
            kill -HUP "${PIDS[nginx]}"
        done
    ) &
    check "while nginx is reloaded five times no GET is lost where retry = \"idempotent\"" \
        "$((PLAIN * 200)) answers for $PLAIN tenants, 0 under another certificate" "$(everybody patient 200)"
    wait $!
}

# The subject of the client certificate that s_server's page holds.
subject_on_page() {
    sed -n '/^-----BEGIN CERTIFICATE/,/^-----END CERTIFICATE/p' "$WORK/answer.body" |
        openssl x509 -noout -subject -nameopt RFC2253 2>&1 | sed 's/^subject=//'
}

check_openssl_server() {
    local one other version
    one="$(finess 10)"
    other="$(tenant_of other_ca)"
    for version in 2 3; do
        ask "$one" "/verify1$version/"
        check "openssl s_server -Verify accepts the right certificate (TLS 1.$version)" "200 TLSv1.$version $(dn "$one")" \
            "$STATUS $(sed -n 's/^New, \(TLSv1\.[23]\),.*/\1/p' "$WORK/answer.body" | head -n 1) $(subject_on_page)"
        ask "$other" "/verify1$version/"
        check "openssl s_server -Verify refuses a certificate of another CA: certificate_rejected_by_upstream (TLS 1.$version)" \
            certificate_rejected_by_upstream "$(problem)"
        ask "$one" "/verify1$version/"
        check "after it refused one tenant another is still accepted (TLS 1.$version)" 200 "$STATUS"
        ask "$one" "/lax1$version/"
        check "openssl s_server without -Verify is certificate_not_requested (TLS 1.$version)" certificate_not_requested "$(problem)"
    done
}

check_untrusted_and_unreachable() {
    local one
    one="$(finess 11)"
    ask "$one" /foreign/who
    check "a server whose certificate is of another CA is upstream_untrusted" upstream_untrusted "$(problem)"
    ask "$one" /misnamed/who
    check "a server whose certificate bears another name is upstream_untrusted" upstream_untrusted "$(problem)"
    ask "$one" /closed/who
    check "a port on which nobody listens is upstream_unreachable" upstream_unreachable "$(problem)"
    ask "$one" /plain/who
    check "a server that speaks no TLS is upstream_protocol_error" upstream_protocol_error "$(problem)"
}

# request_as_openssl_reads_it FILE: what openssl makes of a request, on one line.
request_as_openssl_reads_it() {
    openssl req -verify -noout -text -nameopt RFC2253,utf8,-esc_msb,-dn_rev -in "$1" 2>&1 |
        sed -n 's/.*\(verify OK\).*/\1/p; s/^ *Subject: *//p; s/.*Public-Key: (\(.*\)).*/\1/p; s/^ *Signature Algorithm: *//p' |
        sort -u | paste -sd '|'
}

check_enrolment() {
    local number out="$WORK/enrolment.tmp"
    number="$(finess 12)"
    mkdir -p "$out"
    "$RELAIS" csr --finess "$number" --service-name "Proxy DMP, Nîmes" --organization "ÉTABLISSEMENT" --department "Gard (30)" \
        --out "$out" >>"$WORK/enrolment.log" 2>&1 || true
    check "openssl verifies a request, with the names in IGC-Santé's order" \
        "2048 bit|C=FR,ST=Gard (30),O=ÉTABLISSEMENT,OU=1$number,CN=Proxy DMP\\, Nîmes|sha256WithRSAEncryption|verify OK" \
        "$(LC_ALL=C request_as_openssl_reads_it "$out/$number-proxy-dmp-nimes.csr")"
}

# shell_blocks FILE: what is between a line ```sh and the next ```, which a reader would copy.
shell_blocks() { awk '/^```sh$/ { on = 1; next } /^```$/ { on = 0 } on' "$1"; }

check_certificates_page() {
    local page="$WORK/page.tmp"
    rm -rf "$page"
    mkdir -p "$page"
    shell_blocks "$ROOT/docs/certificates.md" >"$WORK/page.tmp/commands"
    (cd "$page" && PATH="$(dirname "$RELAIS"):$PATH" bash -euo pipefail commands) >"$WORK/page.log" 2>&1 ||
        echo "a command of the page failed" >>"$WORK/page.log"
    check "docs/certificates.md leads from an order to a renewed certificate that is served" \
        "certificates  1|  0B0000006 may use insi-auto|0 errors, 0 warnings, 0 notes" \
        "$(tail -n 5 "$WORK/page.log" | grep -E '^certificates|may use|errors|failed' | paste -sd '|')"
    check "of its requests only those that were not answered are left" "0B0000014 0B0000022" \
        "$(cd "$page/pending" && find . -name '*.key' | sed 's|.*/\(0B[0-9]*\)-.*|\1|' | sort | paste -sd ' ')"
}

# The last one that needs the gateway: it restarts it.
check_traditional_key() {
    local number file command
    number="$(tenant_of traditional)"
    file="$WORK/certs/traditional/$number.key"
    ask "$number" /both/who
    check "a tenant whose key is in openssl's traditional encryption is not served" tenant_unknown "$(problem)"
    command="$(sed -n "s|.*convert it: \(openssl pkcs8 [^\"]*-in $file -out $file.new\).*|\1|p" "$WORK/relais.log" | head -n 1)"
    check "the log has a command that converts it" \
        "openssl pkcs8 -topk8 -v2 aes-256-cbc -in $file -out $file.new" "$command"
    # As written, but for the passwords that openssl would ask for; of one file it would take the second line for the
    # new key.
    if [[ -n "$command" ]]; then
        bash -c "$command -passin file:$WORK/passwords -passout file:$file.password" >>"$WORK/openssl.log" 2>&1 || true
    fi
    if [[ -s "$file.new" ]]; then mv "$file.new" "$file"; fi
    stop relais
    start_relais
    ask "$number" /both/who
    check "once that command was followed the tenant is served" "200|$(dn "$number")" "$(outcome x-client-dn)"
}

check_stop() {
    local status=0 pid="${PIDS[relais]}"
    unset "PIDS[relais]"
    kill -TERM "$pid"
    for _ in {1..100}; do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" || status=$?
    check "asked to stop, relais ends within ten seconds with exit code 0" 0 "$status"
    check "nothing in relais's log is an error or a panic" "" "$(grep -E 'ERROR|panicked' "$WORK/relais.log" | head -n 3 || true)"
}
