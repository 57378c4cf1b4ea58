//! Bodies of outcomes: statements, retracts, and every fault with its place.

use flywheel_schemas::id;

use super::*;

const ID: &str = "013bf4c4-a1bb-7000-8000-000000000001";

fn with(rest: &str) -> String {
    format!(r#"{{"prediction_id":"{ID}",{rest}}}"#)
}

#[test]
fn an_assert_is_written_with_its_defaults() {
    let plan = plan(flights());
    let (stated, value) = stated(&plan, &with(r#""labels":{"arr_delay":-0.0,"landed":true}"#));
    assert_eq!(stated.prediction_id.as_str(), ID);
    assert_eq!(stated.event_time_us, NOW_MS * 1000);
    assert_eq!(id::time_ms(&stated.event_id.parse().unwrap()), Some(NOW_MS));
    for (path, expected) in [
        ("prediction_id", Value::String(ID.to_owned())),
        ("event_id", Value::String(stated.event_id.to_string())),
        ("outcome_id", Value::String(String::new())),
        ("revision", Value::Long(0)),
        ("op", Value::String("assert".to_owned())),
        ("op_time", Value::TimestampMicros(NOW_MS * 1000)),
        ("event_time", Value::TimestampMicros(NOW_MS * 1000)),
        ("contract_version", Value::Int(3)),
        ("source", Value::Null),
        ("labels", Value::Null),
        ("label.landed", Value::Boolean(true)),
        ("label.bags", Value::Null),
    ] {
        assert_eq!(at(&value, path), expected, "{path}");
    }
    assert!(matches!(at(&value, "label.arr_delay"), Value::Double(zero) if zero.is_sign_negative()));
}

#[test]
fn what_is_given_is_written() {
    let body = with(
        r#""source":"ops\u00e9","event_id":"0ACE4C8E-5FD1-4F6D-A1A4-E2C1B1F1D2A3","op_time":7,"op":"assert","revision":-2,
        "outcome_id":"bag-1","event_time":"1970-01-01T00:00:00.000009Z","labels":{"bags":2}"#,
    );
    let (stated, value) = stated(&plan(flights()), &body);
    assert_eq!(stated.event_id.as_str(), "0ace4c8e-5fd1-4f6d-a1a4-e2c1b1f1d2a3");
    for (path, expected) in [
        ("outcome_id", Value::String("bag-1".to_owned())),
        ("revision", Value::Long(-2)),
        ("op_time", Value::TimestampMicros(7)),
        ("event_time", Value::TimestampMicros(9)),
        ("source", Value::String("opsé".to_owned())),
        ("label.bags", Value::Int(2)),
    ] {
        assert_eq!(at(&value, path), expected, "{path}");
    }
}

#[test]
fn a_retract_names_labels_or_all() {
    let plan = plan(flights());
    let text = |name: &str| Value::String(name.to_owned());
    for (rest, names) in [
        (r#""op":"retract""#, vec![]),
        (r#""op":"retract","labels":[]"#, vec![]),
        (r#""op":"retract","labels":null"#, vec![]),
        (r#""labels":["landed","arr\u005fdelay"],"op":"retract""#, vec![text("landed"), text("arr_delay")]),
        (r#""labels":["bags"],"op":"retract","outcome_id":"1""#, vec![text("bags")]),
    ] {
        let (_, value) = stated(&plan, &with(rest));
        assert_eq!(at(&value, "op"), text("retract"));
        assert_eq!(at(&value, "labels"), Value::Array(names), "{rest}");
        assert_eq!(at(&value, "label"), Value::Null);
    }
}

#[test]
fn every_fault_has_its_place() {
    let plan = plan(flights());
    for (rest, faults) in [
        (r#""labels":{}"#, vec!["/labels missing_required"]),
        (r#""labels":null"#, vec!["/labels missing_required"]),
        (r#""labels":"landed""#, vec!["/labels wrong_type"]),
        (r#""labels":["landed"]"#, vec!["/labels wrong_type"]),
        (r#""op":"retract","labels":{"landed":true}"#, vec!["/labels wrong_type"]),
        (r#""labels":{"landed":null}"#, vec!["/labels/landed null_label"]),
        (r#""labels":{"late":1}"#, vec!["/labels/late unknown_label"]),
        (r#""labels":{"landed":1,"landed":true}"#, vec!["/labels/landed wrong_type", "/labels/landed duplicate_key"]),
        (r#""labels":{"bags":1}"#, vec!["/outcome_id missing_required"]),
        (r#""labels":{"bags":1},"outcome_id":"""#, vec!["/outcome_id missing_required"]),
        (r#""labels":["bags"],"op":"retract""#, vec!["/outcome_id missing_required"]),
        (
            r#""labels":["landed",5,"late","landed"],"op":"retract""#,
            vec!["/labels/1 wrong_type", "/labels/2 unknown_label", "/labels/3 duplicate_key"],
        ),
        (r#""labels":{"landed":true},"op":"undo""#, vec!["/op invalid_value"]),
        (r#""labels":{"landed":true},"event_id":"1""#, vec!["/event_id invalid_id"]),
        (r#""labels":{"landed":true},"revision":1.5"#, vec!["/revision wrong_type"]),
        (
            r#""labels":{"landed":true},"event_time":"2013-01-01T05:20:00.124Z","op_time":"2014-01-01T00:00:00Z""#,
            vec!["/event_time event_time_ahead", "/op_time op_time_ahead"],
        ),
        (r#""labels":{"landed":true},"label":{}"#, vec!["/label unknown_field"]),
        (r#""labels":{"landed":true},"prediction_id":"x""#, vec!["/prediction_id duplicate_key"]),
    ] {
        assert_eq!(outcome_refused(&plan, &with(rest)), faults, "{rest}");
    }
    assert_eq!(outcome_refused(&plan, r#"{"labels":{"landed":true}}"#), ["/prediction_id missing_required"]);
    assert_eq!(
        outcome_refused(&plan, r#"{"prediction_id":"0ace4c8e-5fd1-4f6d-a1a4-e2c1b1f1d2a3","labels":{"landed":true}}"#),
        ["/prediction_id invalid_id"]
    );
}
