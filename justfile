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

# Known vulnerabilities in dependencies (fetches the RustSec database)
advisories:
    cargo deny check advisories

# Emulator, private upstream and sidecar on loopback
demo:
    cargo run -- demo

# The hot path, measured
bench:
    cargo bench
