# The recipes that .ci/run calls in turn. `just` alone lists them.

_default:
    @just --list --unsorted

# everything, as before a merge
ci:
    .ci/run

# format all Rust sources
fmt:
    cargo fmt

# lint
clippy:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# lint the shell scripts
shellcheck:
    shellcheck -x .ci/run tests/interop/run.sh benches/compare/run.sh benches/compare/figures.sh benches/rotation/run.sh benches/chaos/run.sh fuzz/run.sh

# unit, integration and documentation tests
test *ARGUMENTS:
    cargo test {{ARGUMENTS}}

# the documentation of everything, private items included
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

# advisories, bans, licences, sources (needs cargo-deny)
deny:
    cargo deny check

# simulated services, sample structures, the gateway: who saw which certificate
demo *ARGUMENTS="--check":
    cargo run --release -- demo {{ARGUMENTS}}

# nginx, openssl and curl around the gateway
interop *ARGUMENTS="--release":
    bash tests/interop/run.sh {{ARGUMENTS}}

# Relais beside the bare forwarder, nginx and HAProxy, and which targets are met; `just compare --quick` tries it out
compare *ARGUMENTS:
    benches/compare/run.sh {{ARGUMENTS}}

# micro-benchmarks: of one subject with `just bench selection`; compare with `just bench --baseline main`
bench *ARGUMENTS:
    cargo bench -- {{ARGUMENTS}}

# load while everything goes wrong: a million requests
chaos *ARGUMENTS:
    benches/chaos/run.sh {{ARGUMENTS}}

# every fuzz target for ten minutes, on the nightly toolchain (needs cargo-fuzz)
fuzz *ARGUMENTS:
    fuzz/run.sh {{ARGUMENTS}}

# make the example certificates anew
certs-example:
    cargo run --example make-certs-example -- certs-example
