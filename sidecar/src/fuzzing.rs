//! What the fuzz targets call: the oracles of the tests. Each panics where transcoder and oracle disagree.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::transcode::tests::{differential, oracle};
use crate::transcode::{Plan, Scratch};

/// `text` is JSON to us if it is to serde_json.
pub fn json(text: &str) {
    oracle::check_json(text).unwrap_or_else(|fault| panic!("{fault}"));
}

/// A contract with every type, for [`features`].
pub fn every_type() -> Plan {
    oracle::every_type()
}

/// What is taken of `text` as the features of a prediction is what it says.
pub fn features(plan: &Plan, scratch: &mut Scratch, text: &str) {
    oracle::check_features(plan, scratch, text).unwrap_or_else(|fault| panic!("{fault}"));
}

/// The contract and the body that `seed` chooses give the datum that apache-avro gives.
///
/// The bytes are the seed of a generator and not what it gives: where those that it gives end, it would give zeros for ever,
/// and what draws until it likes a number would not end.
pub fn differential(seed: [u8; 32]) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    // Some seeds choose nothing.
    let Ok(tree) = differential::case().new_tree(&mut runner) else { return };
    differential::check_case(&tree.current()).unwrap_or_else(|fault| panic!("{fault}"));
}
