//! One field, one value: what each type takes and what becomes of it.

use flywheel_schemas::contract::Block;

use super::*;

fn one(ty: &str, expect: Option<Expect>) -> Plan {
    let ty = Type::parse(ty).unwrap();
    let contract = flights();
    plan(Contract {
        entity: Vec::new(),
        features: vec![Field { expect, ..field("x", ty) }],
        prediction: Vec::new(),
        ..contract
    })
}

fn body(value: &str) -> String {
    format!(r#"{{"model_version":"1","features":{{"x":{value}}}}}"#)
}

fn taken(ty: &str, value: &str) -> Value {
    at(&served(&one(ty, None), &body(value)).1, "features.x")
}

fn reason(ty: &str, value: &str) -> String {
    let faults = refused(&one(ty, None), body(value));
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].strip_prefix("/features/x ").unwrap().to_owned()
}

#[test]
fn numbers_keep_every_bit() {
    for text in [
        "0",
        "-0",
        "-0.0",
        "0.1",
        "1e0",
        "123456789012345678901234567890",
        "9007199254740993",
        "-9007199254740993",
        "5e-324",
        "-2.4703282292062328e-324",
        "2.2250738585072011e-308",
        "1.7976931348623157e308",
        "1e-400",
        "0.30000000000000004",
        "8.41e21",
        "9.5E-22",
        "1e23",
        "1E+22",
        "9007199254740992e22",
        "9007199254740993e1",
        "4.35e-22",
        "0.000000000000000000000000000000000000000000000000000123",
        "179769313486231580793728971405303415079934132710037826936173778980444968292764750946649017977587207096330286416692887910946555547851940402630657488671505820681908902000708383676273854845817711531764475730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880",
    ] {
        let expected: f64 = text.parse().unwrap();
        assert!(
            matches!(taken("double", text), Value::Double(value) if value.to_bits() == expected.to_bits()),
            "{text}"
        );
        let expected: f32 = text.parse().unwrap();
        if expected.is_finite() {
            assert!(
                matches!(taken("float", text), Value::Float(value) if value.to_bits() == expected.to_bits()),
                "{text}"
            );
        }
    }
    // Rounded twice, by way of f64, this would be the even neighbour.
    let text = "1.00000017881393432617187499";
    assert_ne!(text.parse::<f64>().unwrap() as f32, text.parse::<f32>().unwrap());
    assert_eq!(taken("float", text), Value::Float(text.parse().unwrap()));
}

#[test]
fn the_tokens_of_python_are_floats() {
    for ty in ["double", "float"] {
        for (token, check) in [("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)] {
            match taken(ty, token) {
                Value::Double(value) => assert_eq!(value.to_bits(), check.to_bits()),
                Value::Float(value) => assert_eq!(value.to_bits(), (check as f32).to_bits()),
                other => panic!("{other:?}"),
            }
        }
    }
    for ty in ["int", "long", "boolean", "string", "timestamp", "decimal(3,1)"] {
        assert_eq!(reason(ty, "NaN"), "wrong_type", "{ty}");
        assert_eq!(reason(ty, "-Infinity"), "wrong_type", "{ty}");
    }
    for (token, faults) in [("-NaN", [" invalid_json"]), ("nan", [" invalid_json"]), ("Inf", [" invalid_json"])] {
        assert_eq!(refused(&one("double", None), body(token)), faults, "{token}");
    }
}

#[test]
fn what_each_type_takes() {
    let text = |text: &str| Value::String(text.to_owned());
    for (ty, value, expected) in [
        ("boolean", "true", Value::Boolean(true)),
        ("boolean", "false", Value::Boolean(false)),
        ("boolean", "null", Value::Null),
        ("int", "-2147483648", Value::Int(i32::MIN)),
        ("int", "-0", Value::Int(0)),
        ("long", "9223372036854775807", Value::Long(i64::MAX)),
        ("long", "-9223372036854775808", Value::Long(i64::MIN)),
        ("string", r#""""#, text("")),
        ("string", r#""\"\\\/\b\f\n\r\t\u0000\u00e9\uD834\udd1e""#, text("\"\\/\u{8}\u{c}\n\r\t\0é𝄞")),
        ("string", "\"\u{7f}é𝄞 1234567\u{2028}\"", text("\u{7f}é𝄞 1234567\u{2028}")),
        ("bytes", r#""""#, Value::Bytes(vec![])),
        ("bytes", r#""AP8=""#, Value::Bytes(vec![0, 255])),
        ("bytes", r#""\/\/\/\/""#, Value::Bytes(vec![255, 255, 255])),
        ("date", r#""2013-01-31""#, Value::Date(15_736)),
        ("timestamp", "-5", Value::TimestampMicros(-5)),
        ("timestamp", r#""1969-12-31T23:59:59.999999Z""#, Value::TimestampMicros(-1)),
        ("list<long>", "[]", Value::Array(vec![])),
        ("list<long>", "[ 1 , -2 ]", Value::Array(vec![Value::Long(1), Value::Long(-2)])),
        ("list<string>", r#"["a","\n"]"#, Value::Array(vec![text("a"), text("\n")])),
    ] {
        assert_eq!(taken(ty, value), expected, "{ty} {value}");
    }
    let uuid = taken("uuid", r#""0ACE4C8E-5FD1-4F6D-A1A4-E2C1B1F1D2A3""#);
    assert!(matches!(uuid, Value::Uuid(uuid) if uuid.to_string() == "0ace4c8e-5fd1-4f6d-a1a4-e2c1b1f1d2a3"));
    let decimal = taken("decimal(6,2)", r#""-300.5""#);
    assert_eq!(decimal, Value::Decimal(apache_avro::Decimal::from([0x8a, 0x9e])));
}

#[test]
fn what_each_type_refuses() {
    for (ty, value, expected) in [
        ("boolean", "1", "wrong_type"),
        ("boolean", r#""true""#, "wrong_type"),
        ("int", "2147483648", "out_of_range"),
        ("int", "1.0", "wrong_type"),
        ("int", "1e0", "wrong_type"),
        ("int", r#""1""#, "wrong_type"),
        ("long", "9223372036854775808", "out_of_range"),
        ("long", "-9223372036854775809", "out_of_range"),
        ("long", "18446744073709551617", "out_of_range"),
        ("long", "100000000000000000000", "out_of_range"),
        ("double", "true", "wrong_type"),
        ("double", r#""NaN""#, "wrong_type"),
        ("double", "1e309", "out_of_range"),
        ("double", "-1e99999999999999999999", "out_of_range"),
        ("float", "3.5e38", "out_of_range"),
        ("string", "5", "wrong_type"),
        ("string", r#""\udc00""#, "invalid_utf8"),
        ("string", r#""\ud834""#, "invalid_utf8"),
        ("string", r#""\ud834\n""#, "invalid_utf8"),
        ("string", r#""\ud834\u0041""#, "invalid_utf8"),
        ("bytes", r#""AP8""#, "invalid_value"),
        ("bytes", r#""AP9=""#, "invalid_value"),
        ("bytes", r#""====""#, "invalid_value"),
        ("bytes", r#""A_8=""#, "invalid_value"),
        ("date", r#""2013-02-29""#, "invalid_value"),
        ("date", "15736", "wrong_type"),
        ("timestamp", r#""2013-01-31T00:00:00""#, "invalid_value"),
        ("timestamp", r#""2013-01-31T00:00:00.1234567Z""#, "invalid_value"),
        ("timestamp", "1.5", "wrong_type"),
        // Now, in nanoseconds.
        ("timestamp", "1764000000000000000", "out_of_range"),
        ("timestamp", "253402300800000000", "out_of_range"),
        ("timestamp", "-62135596800000001", "out_of_range"),
        ("timestamp", r#""0001-01-01T00:00:00+00:01""#, "out_of_range"),
        ("uuid", r#""0ace4c8e5fd14f6da1a4e2c1b1f1d2a3""#, "invalid_value"),
        ("uuid", r#""{0ace4c8e-5fd1-4f6d-a1a4-e2c1b1f1d2a}""#, "invalid_value"),
        ("decimal(3,1)", "1.5", "wrong_type"),
        ("decimal(3,1)", r#""1.25""#, "out_of_range"),
        ("decimal(3,1)", r#""100""#, "out_of_range"),
        ("decimal(3,1)", r#""1e1""#, "invalid_value"),
        ("list<int>", "5", "wrong_type"),
        ("list<int>", "{}", "wrong_type"),
    ] {
        assert_eq!(reason(ty, value), expected, "{ty} {value}");
    }
}

#[test]
fn both_ends_of_an_expected_range_belong_to_it() {
    let range = |min: f64, max: f64| Some(Expect { min: Some(min), max: Some(max) });
    for (ty, expect, good, bad) in [
        ("int", range(-1.5, 2.0), vec!["-1", "2"], vec!["-2", "3"]),
        ("long", range(0.0, 9007199254740992.0), vec!["0", "9007199254740992"], vec!["-1", "9007199254740993"]),
        (
            "double",
            range(0.1, 0.3),
            vec!["0.1", "0.3", "1e-1"],
            vec!["0.30000000000000004", "0.0999", "NaN", "Infinity"],
        ),
        ("float", range(0.1, 0.3), vec!["0.1", "0.3"], vec!["0.31", "0.09", "NaN", "-Infinity"]),
        ("decimal(4,2)", range(0.1, 0.3), vec![r#""0.1""#, r#""0.30""#], vec![r#""0.31""#, r#""-0.10""#]),
        ("list<int>", range(0.0, 1.0), vec!["[0,1]"], vec![]),
        ("double", Some(Expect { min: None, max: Some(1.0) }), vec!["-1e300", "-Infinity"], vec!["1.5", "NaN"]),
    ] {
        let plan = one(ty, expect);
        for value in good {
            served(&plan, &body(value));
        }
        for value in bad {
            assert_eq!(refused(&plan, body(value)), ["/features/x out_of_range"], "{ty} {value}");
        }
    }
    assert_eq!(refused(&one("list<int>", range(0.0, 1.0)), body("[0,2]")), ["/features/x/1 out_of_range"]);
}

#[test]
fn every_block_is_read() {
    for block in Block::ALL {
        let mut contract =
            Contract { entity: vec![], features: vec![], prediction: vec![], decision: vec![], ..flights() };
        let fields = match block {
            Block::Entity => &mut contract.entity,
            Block::Features => &mut contract.features,
            Block::Prediction => &mut contract.prediction,
            Block::Decision => &mut contract.decision,
            Block::Context => &mut contract.context,
        };
        fields.push(field("x", Type::Long));
        let name = block.name();
        let (_, value) = served(&plan(contract), &format!(r#"{{"model_version":"1","{name}":{{"x":7}}}}"#));
        assert_eq!(at(&value, &format!("{name}.x")), Value::Long(7));
    }
}
