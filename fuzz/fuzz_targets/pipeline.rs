//! Bytes as choices of a trial: see `tests/support/trial`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| rookeeper_fuzz::trial::run(bytes));
