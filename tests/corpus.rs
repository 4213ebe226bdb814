//! Runs every stored input of the fuzzer through its target: the initial inputs and earlier findings.

#[path = "fuzz/targets.rs"]
mod targets;

use std::path::Path;

#[test]
fn no_input_in_the_fuzz_corpus_breaks_an_invariant() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, target) in targets::ALL {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus.join(name)).expect(name) {
            let path = entry.expect(name).path();
            println!("{}", path.display());
            target(&std::fs::read(path).expect(name));
            inputs += 1;
        }
        assert!(inputs > 0, "{name} has no corpus");
    }
}
