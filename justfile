# The recipes call .ci/run, so that both always run the same commands.

# Everything that CI runs
ci:
    .ci/run

# Formatting
fmt:
    .ci/run fmt

# Lints, warnings are errors
clippy:
    .ci/run clippy

# Documentation, warnings are errors
doc:
    .ci/run doc

# Licences, duplicate and banned dependencies, sources
deny:
    .ci/run deny

# All tests
test:
    .ci/run tests

# Floods and stalls against the real binary, with the measurements of each scenario
hostile *ARGS:
    cargo test --locked --test hostile {{ARGS}} -- --nocapture --test-threads=1

# Mixed traffic during faults of upstreams and the metadata server, with a release binary
soak *ARGS:
    tests/soak/run {{ARGS}}

# curl, Python, gRPC, google-auth, Node.js and Java, and HTTP/2 violations, against the real binary
extended *ARGS:
    tests/extended/run {{ARGS}}

# Build everything that a release publishes for Linux, into dist/
release *ARGS:
    deploy/release/build {{ARGS}}

# Fuzz one target, or each in turn (needs a nightly toolchain)
fuzz TARGET="all" SECONDS="60":
    tests/fuzz/run {{TARGET}} {{SECONDS}}

# Known vulnerabilities in dependencies (fetches the RustSec database)
advisories:
    .ci/run advisories

# Run emulator, private upstream and sidecar on loopback
demo:
    cargo run -- demo

# Time the parts of the hot path
bench:
    cargo bench

# Renew the profile that the shipped binary is compiled with (a quarter of an hour; needs LLVM's tools)
pgo:
    benches/pgo

# Compare with nginx, HAProxy, Envoy, pingora and mitmproxy (half an hour on a quiet machine; writes docs/performance.md)
peers *ARGS:
    benches/peers/run {{ARGS}}

# Instructions of a request and size of the shipped binary, against benches/instructions.json (needs valgrind)
instructions *ARGS:
    benches/instructions {{ARGS}}

# Simulate the load of a fleet on metadata servers (writes docs/performance.md)
fleet *ARGS:
    benches/fleet {{ARGS}}

# Build the documentation site with search, from docs/: target/site/book/VERSION (needs mdBook: cargo install --locked
# mdbook)
site *ARGS:
    .ci/site {{ARGS}}
