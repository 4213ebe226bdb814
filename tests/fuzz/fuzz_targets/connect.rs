#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sidentity::upstream::fuzz_connect_answer(input));
