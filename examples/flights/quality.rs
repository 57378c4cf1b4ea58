//! How good predicted probabilities were.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    pub rows: usize,
    /// Area under the ROC curve: how often a late flight got a higher probability than a punctual one, ties half.
    /// NaN where there were none of one kind.
    pub auc: f64,
    /// Mean negative log likelihood in nats; smaller is better.
    pub log_loss: f64,
    /// Mean of the probabilities.
    pub predicted: f64,
    /// Share that was late.
    pub observed: f64,
    /// Expected calibration error: over ten bins of equal width, the mean distance of predicted and observed.
    pub calibration_error: f64,
}

const BINS: usize = 10;

impl Quality {
    /// Of pairs of probability and truth; none where there are none.
    pub fn of(pairs: impl Iterator<Item = (f64, bool)>) -> Option<Quality> {
        let mut pairs: Vec<(f64, bool)> = pairs.collect();
        if pairs.is_empty() {
            return None;
        }
        let count = pairs.len() as f64;
        let mut log_loss = 0.0;
        let mut bins = [(0.0, 0.0); BINS];
        for (probability, truth) in &pairs {
            let kept = probability.clamp(1e-15, 1.0 - 1e-15);
            log_loss -= if *truth { kept.ln() } else { (1.0 - kept).ln() };
            let (predicted, observed) = &mut bins[((probability * BINS as f64) as usize).min(BINS - 1)];
            *predicted += probability;
            *observed += f64::from(u8::from(*truth));
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some(Quality {
            rows: pairs.len(),
            auc: auc(&pairs),
            log_loss: log_loss / count,
            predicted: bins.iter().map(|bin| bin.0).sum::<f64>() / count,
            observed: bins.iter().map(|bin| bin.1).sum::<f64>() / count,
            calibration_error: bins.iter().map(|bin| (bin.0 - bin.1).abs()).sum::<f64>() / count,
        })
    }
}

/// By ranks (Mann and Whitney), those of equal probability sharing the mean of theirs. `pairs` are sorted.
fn auc(pairs: &[(f64, bool)]) -> f64 {
    let (mut ranks, mut late, mut before) = (0.0, 0.0, 0.0);
    for equal in pairs.chunk_by(|a, b| a.0 == b.0) {
        let count = equal.len() as f64;
        let of_these = equal.iter().filter(|(_, truth)| *truth).count() as f64;
        ranks += of_these * (before + (count + 1.0) / 2.0);
        late += of_these;
        before += count;
    }
    (ranks - late * (late + 1.0) / 2.0) / (late * (before - late))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_case_by_hand() {
        let quality = Quality::of([(0.9, true), (0.4, false), (0.4, true), (0.1, false)].into_iter()).unwrap();
        // Pairs of late and punctual: 0.9 > 0.4, 0.9 > 0.1, 0.4 = 0.4, 0.4 > 0.1.
        assert_eq!(quality.auc, 3.5 / 4.0);
        let likelihood: f64 = 0.9 * 0.6 * 0.4 * 0.9;
        assert!((quality.log_loss + likelihood.ln() / 4.0).abs() < 1e-12);
        assert!((quality.calibration_error - (0.1 + 0.2 + 0.1) / 4.0).abs() < 1e-12);
        assert_eq!((quality.predicted, quality.observed, quality.rows), (0.45, 0.5, 4));
    }

    #[test]
    fn nothing_has_no_quality_and_one_kind_no_auc() {
        assert!(Quality::of(std::iter::empty()).is_none());
        assert!(Quality::of([(0.5, true)].into_iter()).unwrap().auc.is_nan());
    }
}
