//! Requests that do not keep the contract, each with what is answered.

use flywheel_schemas::wire::Kind;
use flywheel_tests::system::Answer;
use serde_json::Value;

/// One body that is one row, and refused.
pub struct Request {
    pub kind: Kind,
    pub body: Vec<u8>,
    pub status: u16,
    /// Pointer and reason of each fault; the first reason is that of the dead letter.
    pub faults: Vec<(&'static str, &'static str)>,
}

/// A prediction with these members beside the model version and the score.
pub fn prediction(members: &str) -> String {
    format!(r#"{{"model_version":"1",{members},"prediction":{{"score":0.5}}}}"#)
}

fn features(features: &str) -> String {
    prediction(&format!(r#""features":{{{features}}}"#))
}

/// Every refusal of a single body; `now_ms` is the time, and `other_ms` is an id's that is not made for it.
pub fn refused(now_ms: i64) -> Vec<Request> {
    use flywheel_schemas::id::mint;
    let invalid_utf8 = {
        let mut body = features(r#""count":1,"name":"a?b""#).into_bytes();
        let place = body.iter().position(|byte| *byte == b'?').unwrap();
        body[place] = 0xff;
        body
    };
    let of_another_time = format!(
        r#""prediction_id":"{}","event_time":{},"features":{{"count":1}}"#,
        mint(now_ms - 3_600_000),
        now_ms * 1000
    );
    let ahead = format!(r#""event_time":{},"features":{{"count":1}}"#, (now_ms + 3_600_000) * 1000);
    let of_version_4 = format!(r#""prediction_id":"{}","features":{{"count":1}}"#, uuid::Uuid::new_v4());
    let labels = |labels: &str| format!(r#"{{"prediction_id":"{}","labels":{{{labels}}}}}"#, mint(now_ms));
    let of = |kind: Kind, body: Vec<u8>, faults: &[(&'static str, &'static str)]| Request {
        kind,
        body,
        status: 422,
        faults: faults.to_vec(),
    };
    let predicted = |body: String, faults: &[_]| of(Kind::Predictions, body.into_bytes(), faults);
    let stated = |body: String, faults: &[_]| of(Kind::Outcomes, body.into_bytes(), faults);
    vec![
        predicted(features(r#""count":1,"colour":"red""#), &[("/features/colour", "unknown_field")]),
        predicted(prediction(r#""colour":[{"a":1}],"features":{"count":1}"#), &[("/colour", "unknown_field")]),
        // Every fault is listed.
        predicted(
            features(r#""count":"one","ratio":true,"a/b":0"#),
            &[
                ("/features/count", "wrong_type"),
                ("/features/ratio", "wrong_type"),
                ("/features/a~1b", "unknown_field"),
            ],
        ),
        predicted(features(r#""ratio":1.5"#), &[("/features/count", "missing_required")]),
        predicted(features(r#""count":null"#), &[("/features/count", "missing_required")]),
        predicted(features(r#""count":NaN"#), &[("/features/count", "wrong_type")]),
        predicted(features(r#""count":1,"name":NaN"#), &[("/features/name", "wrong_type")]),
        predicted(features(r#""count":1,"share":NaN"#), &[("/features/share", "out_of_range")]),
        predicted(features(r#""count":1,"ratio":nan"#), &[("", "invalid_json")]),
        predicted(features(r#""count":1,"share":1.5"#), &[("/features/share", "out_of_range")]),
        predicted(features(r#""count":1,"ratio":1e400"#), &[("/features/ratio", "out_of_range")]),
        predicted(features(r#""count":1,"weight":-1e39"#), &[("/features/weight", "out_of_range")]),
        predicted(features(r#""count":2147483648"#), &[("/features/count", "out_of_range")]),
        predicted(features(r#""count":1,"ratio":1,"count":2"#), &[("/features/count", "duplicate_key")]),
        of(Kind::Predictions, invalid_utf8, &[("", "invalid_utf8")]),
        predicted(features(r#""count":1,"name":"\ud800""#), &[("/features/name", "invalid_utf8")]),
        predicted(prediction(&of_another_time), &[("/prediction_id", "id_time_mismatch")]),
        predicted(prediction(&of_version_4), &[("/prediction_id", "invalid_id")]),
        predicted(prediction(&ahead), &[("/event_time", "event_time_ahead")]),
        predicted("[1]".to_owned(), &[("", "not_an_object")]),
        predicted(features(r#""count":1"#) + "}", &[("", "invalid_json")]),
        predicted(String::new(), &[("", "invalid_json")]),
        stated(labels(r#""good":true"#), &[("/labels/good", "unknown_label")]),
        stated(labels(r#""ok":null"#), &[("/labels/ok", "null_label")]),
        stated(labels(r#""ok":1"#), &[("/labels/ok", "wrong_type")]),
        of(Kind::Predictions, ten_megabytes(), &[("", "too_large")]).with_status(413),
        of(Kind::Outcomes, ten_megabytes(), &[("", "too_large")]).with_status(413),
    ]
}

impl Request {
    fn with_status(self, status: u16) -> Request {
        Request { status, ..self }
    }
}

/// A prediction that would be right if it were shorter.
fn ten_megabytes() -> Vec<u8> {
    let body = features(&format!(r#""count":1,"name":"{}""#, "long".repeat(2_500_000)));
    assert!(body.len() > 10_000_000);
    body.into_bytes()
}

/// The answer is the problem that the sidecar documents: RFC 9457 with a pointer per fault.
pub fn check(answer: &Answer, status: u16, faults: &[(&str, &str)]) {
    let word = if status == 413 { "too_large" } else { "refused" };
    assert_eq!((answer.status, answer.media_type.as_str()), (status, "application/problem+json"), "{answer:?}");
    assert_eq!(answer.body["type"], format!("urn:flywheel:problem:{word}"));
    assert_eq!(answer.body["status"], status);
    assert!(["title", "detail"].iter().all(|key| answer.body[key].as_str().is_some_and(|text| !text.is_empty())));
    // A 413 says all in its detail.
    let faults = if status == 413 { &[] } else { faults };
    check_faults(&answer.body["errors"], faults);
}

pub fn check_faults(errors: &Value, faults: &[(&str, &str)]) {
    let errors = errors.as_array().map(Vec::as_slice).unwrap_or_default();
    let found: Vec<(&str, &str)> =
        errors.iter().map(|fault| (fault["pointer"].as_str().unwrap(), fault["reason"].as_str().unwrap())).collect();
    assert_eq!(found, faults, "{errors:?}");
    assert!(errors.iter().all(|fault| fault["detail"].as_str().is_some_and(|text| !text.is_empty())), "{errors:?}");
}
