//! Any text as the features of a prediction, under a contract with every type: what is taken is what was said, and what is right
//! is taken.
#![no_main]

use flywheel_sidecar::fuzzing::{every_type, features};
use flywheel_sidecar::transcode::{Plan, Scratch};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static PLAN: Plan = every_type();
}

fuzz_target!(|text: &str| PLAN.with(|plan| features(plan, &mut Scratch::default(), text)));
