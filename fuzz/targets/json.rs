//! What the scanner takes for JSON is what serde_json takes, but for the tokens that Python writes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| flywheel_sidecar::fuzzing::json(text));
