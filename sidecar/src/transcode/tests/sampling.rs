//! Which predictions are written, and what their rows say of it.

use flywheel_schemas::contract::{Condition, Keep, Scalar};
use flywheel_schemas::sampling::is_in;

use super::predictions::{id_of, with};
use super::*;

#[test]
fn sampling_goes_by_the_hash_of_its_key() {
    let sampled = |key: &str| {
        plan(Contract { sampling: Sampling { rate: 0.25, key: key.to_owned(), keep: vec![] }, ..flights() })
    };
    let (by_id, by_tail, by_leg) = (sampled("prediction_id"), sampled("tail_number"), sampled("leg"));
    let mut kept = [0, 0, 0];
    for n in 0..400 {
        let tail = format!("N{n}");
        let id = id_of(n);
        // The key comes out of order, so that its bytes are moved.
        let body = with(&format!(r#""entity":{{"leg":{},"tail_number":"{tail}"}},"prediction_id":"{id}""#, n - 200));
        for (number, plan, key) in [(0, &by_id, id), (1, &by_tail, tail), (2, &by_leg, (n - 200).to_string())] {
            let mut out = Vec::new();
            let served = prediction(plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut out).unwrap();
            assert_eq!(served.sampled_out, !is_in(key.as_bytes(), 0.25), "{key}");
            assert_eq!(served.sampled_out, out.is_empty());
            if !served.sampled_out {
                kept[number] += 1;
                let value = decode(plan.prediction_schema(), &out);
                assert_eq!(at(&value, "sampling_rate"), Value::Double(0.25));
                assert_eq!(at(&value, "sample_weight"), Value::Double(4.0));
            }
        }
    }
    assert!(kept.iter().all(|kept| (60..140).contains(kept)), "{kept:?}");
    // Without its key a prediction is sampled by its id.
    let mut outs = (0..200).map(|n| {
        let body = with(&format!(r#""entity":{{"tail_number":null}},"prediction_id":"{}""#, id_of(n)));
        prediction(&by_tail, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut Vec::new()).unwrap().sampled_out
    });
    assert!(outs.any(|out| out) && outs.any(|out| !out));
}

fn keep(field: &str, condition: Condition, rate: f64) -> Keep {
    Keep { field: field.to_owned(), condition, rate }
}

fn between(min: Option<f64>, max: Option<f64>) -> Condition {
    Condition::Between { min, max }
}

/// A contract with a field of each type that a rule can go by, thinned to 0.05 where none of `rules` holds.
fn ruled(rules: Vec<Keep>) -> Plan {
    let types = [
        ("score", Type::Double),
        ("small", Type::Float),
        ("count", Type::Int),
        ("cents", Type::Long),
        ("flag", Type::Boolean),
        ("word", Type::String),
    ];
    plan(Contract {
        prediction: types.map(|(name, ty)| field(name, ty)).into(),
        sampling: Sampling { rate: 0.05, key: "prediction_id".to_owned(), keep: rules },
        ..flights()
    })
}

/// One of a row of ids of 2012 that is the same each run.
fn id_of_number(n: i64) -> String {
    format!("013b0000-0000-7{:03x}-8000-{n:012x}", n * 7919 % 4096)
}

/// The rate by which a row with these members of `prediction` was decided, from its datum; of an id that is in at 0.05.
fn rate_of(plan: &Plan, members: &str) -> f64 {
    let id = (0..).map(id_of_number).find(|id| is_in(id.as_bytes(), 0.05)).unwrap();
    let prediction = if members.is_empty() { String::new() } else { format!(r#","prediction":{members}"#) };
    let body =
        format!(r#"{{"prediction_id":"{id}","model_version":"1","features":{{"dep_delay_min":5}}{prediction}}}"#);
    let (_, value) = served(plan, &body);
    let number = |name| match at(&value, name) {
        Value::Double(number) => number,
        other => panic!("{other:?}"),
    };
    assert_eq!(number("sample_weight"), 1.0 / number("sampling_rate"));
    number("sampling_rate")
}

#[test]
fn the_first_rule_that_holds_decides_the_rate() {
    let text = |text: &str| Condition::Equals(Scalar::String(text.to_owned()));
    let plan = ruled(vec![
        keep("score", between(Some(0.8), None), 1.0),
        keep("score", between(Some(0.5), Some(0.75)), 0.5),
        keep("small", between(Some(0.1), None), 0.9),
        keep("count", between(None, Some(-1.0)), 0.8),
        keep("cents", between(Some(1e15), None), 0.7),
        keep("flag", Condition::Equals(Scalar::Boolean(true)), 0.6),
        keep("word", text("süß"), 0.4),
        keep("word", text(""), 0.3),
    ]);
    for (members, rate) in [
        ("", 0.05),
        ("null", 0.05),
        ("{}", 0.05),
        (r#"{"score":null}"#, 0.05),
        (r#"{"score":0.8}"#, 1.0),
        (r#"{"score":0.7999999999999999}"#, 0.05),
        (r#"{"score":Infinity}"#, 1.0),
        (r#"{"score":NaN}"#, 0.05),
        (r#"{"score":0.5}"#, 0.5),
        (r#"{"score":0.75}"#, 0.5),
        (r#"{"score":0.76}"#, 0.05),
        // The bound is compared as the float that it is nearest to.
        (r#"{"small":0.1}"#, 0.9),
        (r#"{"small":0.0999}"#, 0.05),
        (r#"{"count":-1}"#, 0.8),
        (r#"{"count":0}"#, 0.05),
        (r#"{"cents":1000000000000000}"#, 0.7),
        (r#"{"cents":999999999999999}"#, 0.05),
        (r#"{"flag":true}"#, 0.6),
        (r#"{"flag":false}"#, 0.05),
        (r#"{"word":"s\u00fc\u00df"}"#, 0.4),
        (r#"{"word":"süßer"}"#, 0.05),
        (r#"{"word":""}"#, 0.3),
        // The order of the rules counts, not that of the keys.
        (r#"{"word":"","flag":true,"score":0.6}"#, 0.5),
    ] {
        assert_eq!(rate_of(&plan, members), rate, "{members}");
    }
}

/// The values of a block that came before do not stand for those of one that is null.
#[test]
fn a_rule_looks_at_the_prediction_alone() {
    let plan = plan(Contract {
        entity: vec![field("hot", Type::Boolean)],
        features: vec![field("heat", Type::Boolean)],
        prediction: vec![field("late", Type::Boolean)],
        sampling: Sampling {
            rate: 0.05,
            key: "prediction_id".to_owned(),
            keep: vec![keep("late", Condition::Equals(Scalar::Boolean(true)), 1.0)],
        },
        ..flights()
    });
    let kept = (0..200).filter(|n| {
        let body = format!(
            r#"{{"prediction_id":"{}","model_version":"1","entity":{{"hot":true}},"features":{{"heat":true}},"prediction":null}}"#,
            id_of(*n)
        );
        !prediction(&plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut Vec::new()).unwrap().sampled_out
    });
    assert!(kept.count() < 50);
}

/// Where no rate is below 1 nothing is looked at, and the row says so.
#[test]
fn rules_that_keep_all_are_no_sampling() {
    let mut contract = flights();
    contract.sampling.keep = vec![keep("late_probability", between(Some(0.0), None), 1.0)];
    let (kept, value) = served(&plan(contract), &with(""));
    assert!(!kept.sampled_out);
    assert_eq!(at(&value, "sampling_rate"), Value::Double(1.0));
}

/// Σ weight over the rows that are written is Σ 1 over the bodies that came; see `flywheel_schemas::sampling` for the bound.
#[test]
fn weighted_rows_stand_for_all_bodies() {
    let plan = ruled(vec![keep("score", between(Some(0.8), None), 1.0), keep("count", between(Some(0.0), None), 0.25)]);
    let (mut scratch, mut datum) = (Scratch::default(), Vec::new());
    let (mut weighted, mut variance, mut total) = (0.0, 0.0, 0.0);
    for n in 0..6_000_i64 {
        // The ids are fixed, so what passes once passes always.
        let id = id_of_number(n);
        let (score, count) = (n % 10, if n % 3 == 0 { 1 } else { -1 });
        let body = format!(
            r#"{{"prediction_id":"{id}","model_version":"1","features":{{"dep_delay_min":5}},"prediction":{{"score":0.{score},"count":{count}}}}}"#
        );
        let rate: f64 = if score >= 8 {
            1.0
        } else if count >= 0 {
            0.25
        } else {
            0.05
        };
        total += score as f64;
        variance += (score * score) as f64 * (1.0 - rate) / rate;
        datum.clear();
        let served = prediction(&plan, &mut scratch, body.as_bytes(), &RECEIPT, &mut datum).unwrap();
        assert_eq!(served.sampled_out, !is_in(id.as_bytes(), rate));
        if !served.sampled_out {
            let Value::Double(weight) = at(&decode(plan.prediction_schema(), &datum), "sample_weight") else {
                panic!()
            };
            weighted += score as f64 * weight;
        }
    }
    let bound = 4.5 * f64::sqrt(variance);
    assert!(f64::abs(weighted - total) <= bound && bound < total / 3.0, "{weighted} for {total} ± {bound}");
}
