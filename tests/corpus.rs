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

/// Their targets feed parsers that only the library's own tests reach, with these corpora.
const IN_UNIT_TESTS: [&str; 3] = ["connect", "subject_token", "token"];

#[test]
fn every_fuzz_target_has_a_corpus_that_cargo_test_reads() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    for entry in std::fs::read_dir(fuzz.join("fuzz_targets")).expect("targets") {
        let path = entry.expect("a target").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("a name");
        let is_fed = targets::ALL.iter().any(|(known, _)| *known == name);
        assert!(is_fed || IN_UNIT_TESTS.contains(&name), "{name}");
        let corpus = std::fs::read_dir(fuzz.join("corpus").join(name));
        assert!(corpus.expect(name).next().is_some(), "{name} has no corpus");
    }
}
