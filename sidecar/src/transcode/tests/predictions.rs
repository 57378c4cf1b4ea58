//! Bodies of predictions: envelope, blocks, sampling, privacy, and every fault with its place.

use flywheel_schemas::id;

use super::*;

pub const GOOD: &str = r#""model_version":"1","features":{"dep_delay_min":5},"prediction":{"late_probability":0.5}"#;

pub fn with(rest: &str) -> String {
    if rest.is_empty() { format!("{{{GOOD}}}") } else { format!("{{{GOOD},{rest}}}") }
}

/// The text of an id made for `time_ms`.
pub fn id_of(time_ms: i64) -> String {
    id::mint(time_ms).to_string()
}

#[test]
fn a_whole_body_is_written() {
    let plan = plan(flights());
    let id = id_of(NOW_MS);
    let body = format!(
        r#" {{ "prediction_id" : "{}", "event_time":"2013-01-01T00:15:00.123999-05:00", "request_id":"r\n1",
        "parent_prediction_id":"{}","model_version":"7","variant":"b","exposure":"shadow","rank":2,"latency_us":1234,
        "status":"ok", "entity":{{"tail_number":"N14228","leg":-3}},
        "features":{{"dep_delay_min":-60,"carrier":"\u00dcA\ud83d\ude00","wind_mph":1e1,"embedding":[1,-0.5,NaN],
        "card":"4242","phone":"555"}}, "prediction":{{"late_probability":0.25}},"decision":{{}} }} "#,
        id.to_uppercase(),
        id.to_uppercase(),
    );
    let mut out = Vec::new();
    let receipt = Receipt { now_ms: NOW_MS + 5, trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736") };
    let served = prediction(&plan, &mut Scratch::default(), body.as_bytes(), &receipt, &mut out).unwrap();
    assert_eq!(served.prediction_id.as_str(), id);
    assert_eq!(served.event_time_ms, NOW_MS);
    let value = decode(plan.prediction_schema(), &out);
    let text = |text: &str| Value::String(text.to_owned());
    for (path, expected) in [
        ("prediction_id", text(&id)),
        ("event_time", Value::TimestampMicros(NOW_MS * 1000)),
        ("contract_version", Value::Int(3)),
        ("request_id", text("r\n1")),
        ("parent_prediction_id", text(&id)),
        ("trace_id", text("4bf92f3577b34da6a3ce929d0e0e4736")),
        ("model_version", text("7")),
        ("variant", text("b")),
        ("exposure", text("shadow")),
        ("rank", Value::Int(2)),
        ("status", text("ok")),
        ("latency_us", Value::Long(1234)),
        ("sampling_rate", Value::Double(1.0)),
        ("sample_weight", Value::Double(1.0)),
        ("feature_provenance", Value::Null),
        ("flags", Value::Null),
        ("entity.tail_number", text("N14228")),
        ("entity.leg", Value::Long(-3)),
        ("features.dep_delay_min", Value::Int(-60)),
        ("features.carrier", text("ÜA😀")),
        ("features.wind_mph", Value::Double(10.0)),
        ("features.card", text("***")),
        ("features.phone", Value::Null),
        ("prediction.late_probability", Value::Double(0.25)),
        ("decision.action", Value::Null),
    ] {
        assert_eq!(at(&value, path), expected, "{path}");
    }
    let Value::Array(items) = at(&value, "features.embedding") else { panic!() };
    assert_eq!(items[..2], [Value::Float(1.0), Value::Float(-0.5)]);
    assert!(matches!(items[2], Value::Float(nan) if nan.is_nan()));
}

#[test]
fn the_least_body_is_filled_with_defaults() {
    let (served, value) = served(&plan(flights()), &with(""));
    assert_eq!(served.event_time_ms, NOW_MS);
    assert_eq!(id::time_ms(&served.prediction_id.parse().unwrap()), Some(NOW_MS));
    assert_eq!(at(&value, "exposure"), Value::String("served".to_owned()));
    assert_eq!(at(&value, "entity"), Value::Null);
    assert_eq!(at(&value, "request_id"), Value::Null);
}

#[test]
fn id_and_event_time_give_one_another() {
    let plan = plan(flights());
    let id = id_of(5_000);
    for (rest, time_ms) in [
        (format!(r#""prediction_id":"{id}""#), 5_000),
        (format!(r#""prediction_id":"{id}","event_time":5000999"#), 5_000),
        (r#""prediction_id":null,"event_time":"1970-01-01T00:00:07.0019Z""#.to_owned(), 7_001),
        (r#""event_time":null"#.to_owned(), NOW_MS),
        (format!(r#""event_time":{}"#, (NOW_MS + AHEAD_MS_MAX) * 1000 + 999), NOW_MS + AHEAD_MS_MAX),
    ] {
        let (served, value) = served(&plan, &with(&rest));
        assert_eq!(served.event_time_ms, time_ms, "{rest}");
        assert_eq!(id::time_ms(&served.prediction_id.parse().unwrap()), Some(time_ms), "{rest}");
        assert_eq!(at(&value, "event_time"), Value::TimestampMicros(time_ms * 1000), "{rest}");
        assert_eq!(at(&value, "prediction_id"), Value::String(served.prediction_id.to_string()), "{rest}");
    }
}

#[test]
fn ids_of_the_caller_are_any_text_with_an_event_time() {
    let plan = plan(Contract { ids: Ids::Caller, ..flights() });
    let long = "ü".repeat(64);
    let (good, _) = served(&plan, &with(&format!(r#""prediction_id":"{long}","event_time":1"#)));
    assert_eq!((good.prediction_id.as_str(), good.event_time_ms), (long.as_str(), 0));
    let (good, value) = served(
        &plan,
        &with(
            r#""prediction_id":"0ACE4C8E-5FD1-4F6D-A1A4-E2C1B1F1D2A3","event_time":1,"parent_prediction_id":"0ACE4C8E-5FD1-4F6D-A1A4-E2C1B1F1D2A3""#,
        ),
    );
    assert_eq!(good.prediction_id.as_str(), "0ACE4C8E-5FD1-4F6D-A1A4-E2C1B1F1D2A3");
    assert_eq!(at(&value, "parent_prediction_id"), Value::String(good.prediction_id.to_string()));
    for (rest, faults) in [
        ("".to_owned(), vec!["/event_time missing_required", "/prediction_id missing_required"]),
        (r#""prediction_id":"a""#.to_owned(), vec!["/event_time missing_required"]),
        (r#""prediction_id":"","event_time":1"#.to_owned(), vec!["/prediction_id invalid_id"]),
        (format!(r#""prediction_id":"{long}1","event_time":1"#), vec!["/prediction_id invalid_id"]),
    ] {
        assert_eq!(refused(&plan, with(&rest)), faults, "{rest}");
    }
}

#[test]
fn every_fault_has_its_place() {
    let plan = plan(flights());
    let (early, ahead) = (id_of(1), id_of(NOW_MS + AHEAD_MS_MAX + 1));
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    for (body, faults) in [
        ("", vec![" invalid_json"]),
        ("  ", vec![" invalid_json"]),
        ("[]", vec![" not_an_object"]),
        ("17", vec![" not_an_object"]),
        ("nul", vec![" invalid_json"]),
        ("{", vec![" invalid_json"]),
        (&with("")[..20], vec![" invalid_json"]),
        (&format!("{} x", with("")), vec![" invalid_json"]),
        (&with(r#""variant":"a" "b""#), vec![" invalid_json"]),
        (&with(r#""variant":"\x""#), vec![" invalid_json"]),
        (&with(r#""variant":"\u12g4""#), vec![" invalid_json"]),
        (&with("\"variant\":\"\n\""), vec![" invalid_json"]),
        (&with(r#""variant":01"#), vec![" invalid_json"]),
        (&with(r#""other":1."#), vec!["/other unknown_field", " invalid_json"]),
        (&with(r#""variant":"\ud800""#), vec!["/variant invalid_utf8"]),
        (&with(r#""variant":"\ude00\ud83d""#), vec!["/variant invalid_utf8"]),
        (&with(r#""variant":7,"status":[1,{"a":[]}]"#), vec!["/variant wrong_type", "/status wrong_type"]),
        (&with(&format!(r#""variant":"{long}""#)), vec!["/variant out_of_range"]),
        (&with(r#""a/b~c":{"x":[1,2]},"\u0061":1"#), vec!["/a~1b~0c unknown_field", "/a unknown_field"]),
        (&with(r#""variant":"a","variant":"b""#), vec!["/variant duplicate_key"]),
        (&with(r#""features":{}"#), vec!["/features duplicate_key"]),
        (&with(r#""exposure":"seen""#), vec!["/exposure invalid_value"]),
        (&with(r#""rank":-1,"latency_us":1.0"#), vec!["/rank out_of_range", "/latency_us wrong_type"]),
        (&with(r#""rank":2147483648"#), vec!["/rank out_of_range"]),
        (&with(r#""feature_handle":"h""#), vec!["/feature_handle not_supported"]),
        (&with(r#""event_time":-1"#), vec!["/event_time out_of_range"]),
        (&with(r#""event_time":"2013-01-01""#), vec!["/event_time invalid_value"]),
        (&with(r#""event_time":253402300800000000"#), vec!["/event_time out_of_range"]),
        (&with(r#""event_time":"2013-01-01T05:20:00.124Z""#), vec!["/event_time event_time_ahead"]),
        (&with(&format!(r#""prediction_id":"{ahead}""#)), vec!["/prediction_id event_time_ahead"]),
        (&with(&format!(r#""prediction_id":"{early}","event_time":2000"#)), vec!["/prediction_id id_time_mismatch"]),
        (&with(r#""prediction_id":"0ace4c8e-5fd1-4f6d-a1a4-e2c1b1f1d2a3""#), vec!["/prediction_id invalid_id"]),
        (&with(&format!(r#""prediction_id":"{}""#, early.replace('-', ""))), vec!["/prediction_id invalid_id"]),
        (&with(r#""prediction_id":5,"event_time":true"#), vec!["/prediction_id wrong_type", "/event_time wrong_type"]),
        (&with(r#""context":{"session":"s"}"#), vec!["/context/session unknown_field"]),
        (&with(r#""entity":[],"decision":"x""#), vec!["/entity wrong_type", "/decision wrong_type"]),
        (
            "{}",
            vec![
                "/model_version missing_required",
                "/features/dep_delay_min missing_required",
                "/prediction/late_probability missing_required",
            ],
        ),
        (
            r#"{"model_version":null,"features":{"dep_delay_min":null},"prediction":null}"#,
            vec![
                "/features/dep_delay_min missing_required",
                "/prediction/late_probability missing_required",
                "/model_version missing_required",
            ],
        ),
        (
            r#"{"model_version":"1","features":{"wind":1,"dep_delay_min":2001,"carrier":5,"wind_mph":-1e-300,"carrier":"b",
              "embedding":[1,"a",null,1e39,[2]],"card":{},"phone":1},"prediction":{"late_probability":1e400}}"#,
            vec![
                "/features/wind unknown_field",
                "/features/dep_delay_min out_of_range",
                "/features/carrier wrong_type",
                "/features/wind_mph out_of_range",
                "/features/carrier duplicate_key",
                "/features/embedding/1 wrong_type",
                "/features/embedding/2 wrong_type",
                "/features/embedding/3 out_of_range",
                "/features/embedding/4 wrong_type",
                "/features/card wrong_type",
                "/features/phone wrong_type",
                "/prediction/late_probability out_of_range",
            ],
        ),
        (
            r#"{"model_version":"1","features":{"dep_delay_min":1,"wind_mph":NaN},"prediction":{"late_probability":NaN}}"#,
            vec!["/features/wind_mph out_of_range"],
        ),
    ] {
        assert_eq!(refused(&plan, body), faults, "{body}");
    }
    assert_eq!(refused(&plan, b"{\"variant\":\"\xff\"}"), [" invalid_utf8"]);
    assert!(
        prediction(&plan, &mut Scratch::default(), b"{\"a\":1,}", &RECEIPT, &mut Vec::new()).unwrap_err()[1]
            .detail
            .starts_with("byte 7: ")
    );
}

#[test]
fn hostile_bodies_end_early() {
    let plan = plan(flights());
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(65), "]".repeat(65));
    assert_eq!(refused(&plan, deep), ["/x unknown_field", " too_deep"]);
    let endless = format!(r#"{{"x":{}"#, r#"{"a":"#.repeat(1_000_000));
    assert_eq!(refused(&plan, endless), ["/x unknown_field", " too_deep"]);
    let bad = format!(r#"{{"features":{{"embedding":[{}0]}}}}"#, "[],".repeat(10_000));
    assert_eq!(refused(&plan, bad).len(), FAULTS_MAX);
    let mixed: String = (0..10_000).map(|n| format!(r#""k{n}":{n},"#)).collect();
    assert_eq!(refused(&plan, format!("{{{mixed}")).len(), FAULTS_MAX);
    assert_eq!(refused(&plan, vec![b' '; BODY_BYTES_MAX + 1]), [" too_large"]);
    let key = "ü".repeat(100_000);
    let faults = prediction(
        &plan,
        &mut Scratch::default(),
        with(&format!(r#""{key}":1"#)).as_bytes(),
        &RECEIPT,
        &mut Vec::new(),
    );
    assert!(faults.unwrap_err()[0].pointer.len() <= KEY_BYTES_MAX + 1);
}

#[test]
fn a_detail_repeats_no_value() {
    let plan = plan(flights());
    let body = r#"{"model_version":"secret","exposure":"secret","prediction_id":"secret","event_time":"secret",
        "features":{"card":["secret"],"dep_delay_min":"secret","wind_mph":-31337}}"#;
    let faults = prediction(&plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut Vec::new()).unwrap_err();
    for fault in faults {
        assert!(!fault.to_string().contains("secret") && !fault.to_string().contains("31337"), "{fault}");
    }
}

#[test]
fn a_plan_refuses_what_it_cannot_do() {
    let compile = |contract: Contract| Plan::compile(Arc::new(contract)).map(|_| ()).unwrap_err().to_string();
    let secret = Field { privacy: Privacy::Hmac, ..field("secret", Type::String) };
    assert!(compile(Contract { context: vec![secret], ..flights() }).contains("hmac"));
    for key in ["nothing", "dep_delay_min", "wind_mph"] {
        let sampling = Sampling { rate: 0.5, key: key.to_owned(), keep: vec![] };
        assert!(compile(Contract { sampling, ..flights() }).contains(key));
    }
}

#[test]
fn one_scratch_serves_body_after_body() {
    let plan = plan(flights());
    let mut scratch = Scratch::default();
    let id = id_of(1);
    let bodies = [
        with(&format!(r#""prediction_id":"{id}","entity":{{"leg":1,"tail_number":"a\tb"}}"#)),
        with(&format!(r#""prediction_id":"{id}","request_id":"\u0041""#)),
        with("\"x\":1"),
        with(&format!(r#""prediction_id":"{id}""#)),
    ];
    for body in bodies.iter().chain(bodies.iter().rev()) {
        let (mut used, mut fresh) = (Vec::new(), Vec::new());
        let with_used = prediction(&plan, &mut scratch, body.as_bytes(), &RECEIPT, &mut used);
        let with_fresh = prediction(&plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut fresh);
        assert_eq!(with_used, with_fresh);
        assert_eq!(used, fresh);
    }
}
