//! Whatever comes in: no panic, and JSON is what serde_json takes for JSON.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::scanner::Scanner;
use super::*;

const WHOLE: &str = r#"{"prediction_id":"013bf4c4-a1bb-7000-8000-000000000001","event_time":"2013-01-01T05:15:00.123Z",
"request_id":"r\n\ud83d\ude00","model_version":"7","rank":2,"entity":{"tail_number":"N14228","leg":-3},
"features":{"carrier":"UA","dep_delay_min":-6,"wind_mph":1.5e1,"embedding":[1,-0.5,NaN],"card":"4","phone":null},
"prediction":{"late_probability":0.25},"decision":{"action":"wait"},"other":[{"a":[]},true,"\u0041"]}"#;

const STATEMENT: &str = r#"{"prediction_id":"013bf4c4-a1bb-7000-8000-000000000001","labels":{"landed":true,"arr_delay":-1.5},
"event_time":"2013-01-01T05:15:00.123Z","outcome_id":"a","revision":3,"op":"assert","op_time":5,
"event_id":"0ace4c8e-5fd1-4f6d-a1a4-e2c1b1f1d2a3","source":"s"}"#;

/// Reads the body as both; nothing is written where there are faults, and something where there are none.
fn read(body: &[u8]) {
    let plan = plan(flights());
    let mut scratch = Scratch::default();
    let mut out = Vec::new();
    match prediction(&plan, &mut scratch, body, &RECEIPT, &mut out) {
        Ok(_) => drop(decode(plan.prediction_schema(), &out)),
        Err(faults) => assert!(out.is_empty() && !faults.is_empty()),
    }
    out.clear();
    match outcome(&plan, &mut scratch, body, &RECEIPT, &mut out) {
        Ok(_) => drop(decode(plan.outcome_schema(), &out)),
        Err(faults) => assert!(out.is_empty() && !faults.is_empty()),
    }
}

/// A piece of text that is often part of JSON.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\\[\\]{}\",:\\\\ ]",
        "-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?",
        "\"[a-z\\\\\"/u0-9\u{1}é]{0,4}\"",
        prop::sample::select(vec!["null", "true", "false", "nul", "{\"a\":", "[1,", "\"\\u12", "]", "}", ","])
            .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&body);
    }

    #[test]
    fn no_change_of_a_good_body_makes_it_panic(
        (is_outcome, cuts) in (
            any::<bool>(),
            prop::collection::vec((any::<prop::sample::Index>(), 0..3_usize, prop_oneof![piece(), any::<String>()]), 1..4),
        ),
    ) {
        let mut body = if is_outcome { STATEMENT } else { WHOLE }.as_bytes().to_vec();
        for (at, length, piece) in cuts {
            let at = at.index(body.len());
            let end = (at + length).min(body.len());
            body.splice(at..end, piece.bytes());
            if body.is_empty() {
                body.push(b' ');
            }
        }
        read(&body);
    }

    #[test]
    fn json_is_what_serde_json_takes(pieces in prop::collection::vec(piece(), 1..8)) {
        let text = pieces.concat();
        let mut scanner = Scanner::new(&text);
        scanner.space();
        let ours = scanner.skip().is_ok() && {
            scanner.space();
            scanner.is_at_end()
        };
        prop_assert_eq!(ours, serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
    }
}

#[test]
fn every_cut_of_a_body_is_refused() {
    for end in 0..WHOLE.len() {
        read(&WHOLE.as_bytes()[..end]);
        let cut = WHOLE.get(..end).unwrap();
        assert_eq!(refused(&plan(flights()), cut).pop().as_deref(), Some(" invalid_json"), "{cut}");
    }
}
