#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kms::fuzzing::run("query", bytes));
