# The recipes that CI runs stand in .ci/run, so that the two cannot differ.

# All that CI runs
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

# Floods and stalls against the real binary, with the figures of each scenario
hostile *ARGS:
    cargo test --locked --test hostile {{ARGS}} -- --nocapture --test-threads=1

# Mixed traffic while upstreams and the metadata server fail, with a release binary
soak *ARGS:
    tests/soak/run {{ARGS}}

# curl, Python, gRPC, google-auth, Node.js and Java, and hostile HTTP/2, against the real binary
extended *ARGS:
    tests/extended/run {{ARGS}}

# Everything that a release publishes for Linux, into dist/
release *ARGS:
    deploy/release/build {{ARGS}}

# Fuzz one target, or each in turn (needs a nightly toolchain)
fuzz TARGET="all" SECONDS="60":
    tests/fuzz/run {{TARGET}} {{SECONDS}}

# Known vulnerabilities in dependencies (fetches the RustSec database)
advisories:
    .ci/run advisories

# Emulator, private upstream and sidecar on loopback
demo:
    cargo run -- demo

# The parts of the hot path, timed
bench:
    cargo bench

# The sidecar compiled with a profile of its own work: target/pgo/sidentity (five minutes; needs LLVM's tools)
pgo:
    benches/pgo

# Beside nginx, HAProxy, Envoy and mitmproxy (a quarter of an hour on a quiet machine; writes docs/performance.md)
peers *ARGS:
    benches/peers/run {{ARGS}}

# Instructions of a request, against benches/instructions.json (needs valgrind)
instructions *ARGS:
    benches/instructions {{ARGS}}

# What a fleet asks of metadata servers, simulated (writes docs/performance.md)
fleet *ARGS:
    benches/fleet {{ARGS}}

# The documentation site with search, from docs/: target/site/book/VERSION (needs mdBook: cargo install --locked mdbook)
site *ARGS:
    .ci/site {{ARGS}}
