use uuid::Uuid;

use super::*;

/// Hashes that another implementation of murmur2 gave, so that a decision never changes under a key that is in use.
#[test]
fn the_decision_for_a_key_is_for_ever() {
    for (key, hash) in [
        ("013bf4c4-a1bb-7000-8000-000000000001", 65_932_736_u32),
        ("013bf4c4-a1bb-7000-8000-000000000002", 3_201_404_198),
        ("013bf4c4-a1bb-7000-8000-000000000003", 1_402_952_572),
        ("N14228", 1_443_201_052),
        ("", 3_952_896_559),
        ("-7", 46_601_757),
    ] {
        // The hash is below a rate of (hash + 1) / 2^32 and not below one of hash / 2^32; both are exact as f64.
        assert!(is_in(key.as_bytes(), (f64::from(hash) + 1.0) / HASHES), "{key}");
        assert!(!is_in(key.as_bytes(), f64::from(hash) / HASHES), "{key}");
        assert!(is_in(key.as_bytes(), 1.0), "{key}");
    }
}

/// Ids as they are minted: a time that goes on by a millisecond, and bits that look random but are the same each run.
fn ids(count: u64) -> impl Iterator<Item = String> {
    (0..count).map(|number| {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let (high, low) = (1_357_017_300_123 + number, mixed ^ (mixed >> 29));
        Uuid::from_u64_pair((high << 16) | 0x7000 | (low & 0xfff), (low >> 2) | (1 << 63)).to_string()
    })
}

/// If each prediction is in with the probability of its rate r, the weighted sum of values v has the expectation Σ v and
/// the variance Σ v² (1 − r) / r. A sum further off than 4.5 standard deviations comes once in 150,000 times; the ids are
/// fixed, so what passes once passes always.
fn assert_unbiased(rows: impl Iterator<Item = (String, f64, f64)>) {
    let (mut total, mut weighted, mut variance, mut kept) = (0.0, 0.0, 0.0, 0);
    for (id, value, rate) in rows {
        total += value;
        variance += value * value * (1.0 - rate) / rate;
        if is_in(id.as_bytes(), rate) {
            weighted += value / rate;
            kept += 1;
        }
    }
    let bound = 4.5 * f64::sqrt(variance);
    assert!(f64::abs(weighted - total) <= bound, "{weighted} for {total} ± {bound}, {kept} rows kept");
    assert!(bound < total / 4.0, "a bound of {bound} shows nothing about {total}");
}

#[test]
fn weighted_sums_are_without_bias() {
    for rate in [0.01, 0.05, 0.1, 0.5, 0.9] {
        assert_unbiased(ids(100_000).map(|id| (id, 1.0, rate)));
        assert_unbiased((0..).zip(ids(100_000)).map(|(number, id)| (id, f64::from(number % 7), rate)));
    }
}

/// A rate that depends on the value, as a keep rule makes it, leaves no bias either.
#[test]
fn weighted_sums_are_without_bias_under_rules() {
    let scores = (0..).zip(ids(100_000)).map(|(number, id)| (id, f64::from(number % 1000) / 1000.0));
    assert_unbiased(scores.map(|(id, score)| (id, score, if score >= 0.8 { 1.0 } else { 0.05 })));
}

#[test]
fn what_is_in_at_a_rate_is_in_at_a_greater_one() {
    for id in ids(10_000) {
        let decisions = [0.01, 0.1, 0.5, 0.9, 1.0].map(|rate| is_in(id.as_bytes(), rate));
        assert!(decisions.is_sorted(), "{id}: {decisions:?}");
    }
}

/// A topic with as many partitions as 1/rate keeps rows in each of them.
#[test]
fn the_decision_is_independent_of_the_partition() {
    let mut kept = [0; 10];
    for id in ids(20_000).filter(|id| is_in(id.as_bytes(), 0.1)) {
        kept[crate::partition::of(id.as_bytes(), 10) as usize] += 1;
    }
    // 200 are expected in each; the standard deviation is about 14.
    assert!(kept.iter().all(|count| (130..270).contains(count)), "{kept:?}");
}

#[test]
fn a_contract_says_who_is_out_only_where_nothing_else_decides() {
    let contract = |sampling: &str| {
        let text = format!(
            "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\nprediction: {{p: {{type: double}}}}\n\
             entity: {{e: {{type: string, required: true}}}}\nsampling: {sampling}\n"
        );
        Contract::parse(&text).unwrap_or_else(|faults| panic!("{faults:?}"))
    };
    let (inside, outside) = ("013bf4c4-a1bb-7000-8000-000000000001", "013bf4c4-a1bb-7000-8000-000000000002");
    assert!(contract("{rate: 0.5}").samples_out(outside));
    assert!(!contract("{rate: 0.5}").samples_out(inside));
    for unknown in ["{rate: 0.5, key: e}", "{rate: 0.5, keep: [{field: p, min: 0.8, rate: 1}]}", "{rate: 1}"] {
        assert!(!contract(unknown).samples_out(outside), "{unknown}");
    }
}
