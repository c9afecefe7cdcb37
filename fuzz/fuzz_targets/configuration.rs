#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| relais_fuzz::oracles::configuration::check(input));
