#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sidentity::token::fuzz_subject_answers(input));
