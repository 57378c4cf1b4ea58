//! Any contract and any body that keeps it: the datum is that which apache-avro writes for the same values. The bytes are
//! the seed of what the property test beside the transcoder draws: `features` is the target that goes by coverage.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|seed: [u8; 32]| flywheel_sidecar::fuzzing::differential(seed));
