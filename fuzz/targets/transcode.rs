//! Any contract and any body that keeps it: the datum is that which apache-avro writes for the same values. The bytes choose
//! among what the property test of the same name draws.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| flywheel_sidecar::fuzzing::differential(bytes));
