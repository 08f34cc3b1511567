#![no_main]

#[path = "../attack.rs"]
mod attack;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| attack::marker(bytes));
