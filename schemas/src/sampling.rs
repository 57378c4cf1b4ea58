//! Whether a prediction is kept: the same answer in every process, since it is a function of a text and a rate alone.
//!
//! A prediction that is kept at a rate stands for 1/rate predictions; its row says both. So sums over the rows, each
//! times its weight, are estimates without bias of the sums over all predictions, whatever rule chose the rates.

use crate::contract::{Contract, Sampling};
use crate::partition::murmur2;

/// How many values a hash can have.
const HASHES: f64 = 4_294_967_296.0;

/// Whether what has this key is in at this rate: murmur2("s" + key) / 2^32 < rate.
///
/// `key` is the text of the prediction id or of the field that [`Sampling::key`] names, integers in decimal. What is in
/// at one rate is in at every greater one. The letter before the key keeps the decision apart from that of the
/// [partition](crate::partition), which goes by the same hash of the same text.
pub fn is_in(key: &[u8], rate: f64) -> bool {
    f64::from(murmur2(&[b"s", key].concat())) / HASHES < rate
}

impl Contract {
    /// Whether the contract alone says that a prediction with this id was sampled out.
    ///
    /// Where it samples by another key or has `keep` rules, what decided stood in the prediction, and the answer is
    /// false. A sidecar whose configuration overrides the rate decides otherwise than its contract: it is not known here.
    pub fn samples_out(&self, prediction_id: &str) -> bool {
        let Sampling { rate, key, keep } = &self.sampling;
        *rate < 1.0 && key == "prediction_id" && keep.is_empty() && !is_in(prediction_id.as_bytes(), *rate)
    }
}

#[cfg(test)]
mod tests;
