//! Whatever comes in: no panic, and JSON is what serde_json takes for JSON.

use proptest::prelude::*;

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
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "nul",
            "NaN",
            "Infinity",
            "-Infinity",
            "-",
            "{\"a\":",
            "[1,",
            "\"\\u12",
            "]",
            "}",
            ","
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

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
        oracle::check_json(&pieces.concat()).map_err(TestCaseError::fail)?;
    }

    /// Values as each of the types may have them, changed a little, for every type: alone, and within a list.
    #[test]
    fn what_is_taken_is_what_was_said(
        text in value_text(),
        cut in prop::option::of((any::<prop::sample::Index>(), 0..3_usize, piece())),
    ) {
        let mut text = text;
        if let Some((at, length, piece)) = cut {
            let at = (0..=at.index(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let end = (at + length..text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
            text.replace_range(at..end, &piece);
        }
        check_every_type(&text).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn every_text_is_what_it_says_to_every_type() {
    for text in TEXTS {
        check_every_type(text).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

fn check_every_type(text: &str) -> Result<(), String> {
    let types = oracle::scalars().len();
    PLAN.with(|plan| {
        (0..types).try_for_each(|place| {
            for features in [format!("{{\"f{place}\":{text}}}"), format!("{{\"l{place}\" : [{text}, {text}]}}")] {
                oracle::check_features(plan, &mut Scratch::default(), &features)?;
            }
            Ok(())
        })
    })
}

thread_local! {
    static PLAN: Plan = oracle::every_type();
}

/// Values that one of the types takes, or nearly.
const TEXTS: &[&str] = &[
    "true",
    "false",
    "null",
    "NaN",
    "Infinity",
    "-Infinity",
    "-NaN",
    "0",
    "-0",
    "-0.0",
    "1.0",
    "1e3",
    "1E+2",
    "2147483647",
    "2147483648",
    "-2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "1e308",
    "1e309",
    "-1e309",
    "3.4028234663852886e38",
    "3.4028236e38",
    "1e39",
    "5e-324",
    "2.2250738585072011e-308",
    "0.1",
    "16777217",
    "1.00000017881393432617187499",
    "\"12.50\"",
    "\"-12.500\"",
    "\"999.99\"",
    "\"1000\"",
    "\"0.005\"",
    "\"99999999999999999999999999999999999999\"",
    "\"-0.99999999999999999999999999999999999999\"",
    "\"999999999999999999999999999999999999999\"",
    "\"AAEC/w==\"",
    "\"AAE=\"",
    "\"AAF=\"",
    "\"AAE\"",
    "\"2024-02-29\"",
    "\"2023-02-29\"",
    "\"0001-01-01\"",
    "\"2024-06-01T04:00:00Z\"",
    "\"2024-06-01t04:00:00.123456+02:00\"",
    "\"2024-06-01T04:00:60Z\"",
    "1717200000123456",
    "253402300799999999",
    "253402300800000000",
    "\"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"",
    "\"F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6\"",
    "\"f81d4fae7dec11d0a76500a0c91e6bf6\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud83d\"",
    "\"\\ude00\\ud83d\"",
    "\"a\\n\\u0041\\/\"",
    "\"\"",
    "\"\\u0000\"",
    "[]",
    "[1,2]",
    "[null]",
    "{}",
];

/// A value that one of the types takes, or nearly.
fn value_text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(TEXTS).prop_map(str::to_owned),
        any::<f64>().prop_map(|value| if value.is_finite() { format!("{value:e}") } else { "NaN".to_owned() }),
        any::<f32>().prop_map(|value| if value.is_finite() { format!("{value:?}") } else { "Infinity".to_owned() }),
        "-?[0-9]{1,20}(\\.[0-9]{1,22})?([eE]-?[0-9]{1,3})?",
        "\"-?[0-9]{1,40}(\\.[0-9]{1,40})?\"",
        "\"[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,7})?(Z|[+-][0-2][0-9]:[0-6][0-9]))?\"",
        "\"([A-Za-z0-9+/]{4}){0,3}([A-Za-z0-9+/]{2}[A-Za-z0-9+/=]=)?\"",
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap_or_default()),
    ]
}

#[test]
fn every_cut_of_a_body_is_refused() {
    for end in 0..WHOLE.len() {
        read(&WHOLE.as_bytes()[..end]);
        let cut = WHOLE.get(..end).unwrap();
        assert_eq!(refused(&plan(flights()), cut).pop().as_deref(), Some(" invalid_json"), "{cut}");
    }
}
