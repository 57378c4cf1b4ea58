//! Candidates of one request: each row is that of a prediction which says all of it itself.

use proptest::prelude::*;

use super::predictions::id_of;
use super::*;

/// A plan in which every block has fields to split, some of them required and private.
fn ranking() -> Plan {
    let required = |name: &str, ty| Field { required: true, ..field(name, ty) };
    plan(Contract {
        entity: vec![required("user", Type::String), field("item", Type::Long)],
        features: vec![
            required("age", Type::Int),
            field("price", Type::Double),
            field("tags", Type::List(Box::new(Type::String))),
            Field { privacy: Privacy::Mask, ..field("phone", Type::String) },
        ],
        prediction: vec![required("score", Type::Double)],
        decision: vec![field("action", Type::String)],
        context: vec![field("page", Type::String)],
        ..flights()
    })
}

/// A row with its datum, or its faults as `pointer reason`.
type Row = Result<(Served, Vec<u8>), Vec<String>>;

/// What became of each item.
fn rows(plan: &Plan, scratch: &mut Scratch, body: &str) -> Result<Vec<Row>, Vec<String>> {
    assert!(Candidates::are_in(body.as_bytes()), "{body}");
    let candidates = Candidates::find(plan, scratch, body.as_bytes(), 100).map_err(|faults| in_short(&faults))?;
    let mut group = candidates.group(plan, scratch).map_err(|faults| in_short(&faults))?;
    let rows = (0..candidates.items().len()).map(|place| {
        let mut out = b"before".to_vec();
        let served = candidates.item(plan, scratch, &mut group, place, &RECEIPT, &mut out);
        let datum = out.strip_prefix(b"before").unwrap().to_vec();
        served.map(|served| (served, datum)).map_err(|faults| in_short(&faults))
    });
    Ok(rows.collect())
}

fn refused_rows(body: &str) -> Vec<Vec<String>> {
    let rows = rows(&ranking(), &mut Scratch::default(), body).unwrap();
    rows.into_iter().map(|row| row.map(|_| ()).err().unwrap_or_default()).collect()
}

#[test]
fn rows_have_what_is_shared_their_own_and_their_place() {
    let (first, second) = (id_of(NOW_MS), id_of(NOW_MS));
    let body = format!(
        r#" {{ "shared": {{"model_version":"7","request_id":"r1","variant":"b","parent_prediction_id":"p","event_time":{},
            "entity":{{"user":"u1"}},"features":{{"phone":"555","age":30}},"context":{{"page":"home"}}}},
            "items": [
              {{"prediction_id":"{first}","entity":{{"item":1}},"features":{{"price":1.5}},"prediction":{{"score":0.9}}}},
              {{"prediction_id":"{second}","exposure":"holdout","rank":7,"latency_us":3,"status":"x","prediction":{{"score":0.1}},
                "features":{{"tags":["a"]}},"decision":{{"action":"show"}}}},
              {{"prediction":{{"score":0}}}} ] }} "#,
        NOW_MS * 1000
    );
    let plan = ranking();
    let rows = rows(&plan, &mut Scratch::default(), &body).unwrap();
    let rows: Vec<(Served, Value)> = rows
        .into_iter()
        .map(|row| row.unwrap())
        .map(|(served, datum)| (served, decode(plan.prediction_schema(), &datum)))
        .collect();
    let text = |text: &str| Value::String(text.to_owned());
    for (served, row) in &rows {
        for (name, value) in [
            ("prediction_id", text(&served.prediction_id)),
            ("event_time", Value::TimestampMicros(NOW_MS * 1000)),
            ("model_version", text("7")),
            ("request_id", text("r1")),
            ("parent_prediction_id", text("p")),
            ("variant", text("b")),
            ("entity.user", text("u1")),
            ("features.age", Value::Int(30)),
            ("features.phone", text("***")),
            ("context.page", text("home")),
        ] {
            assert_eq!(at(row, name), value, "{name}");
        }
    }
    for (name, values) in [
        ("rank", [Value::Int(0), Value::Int(7), Value::Int(2)]),
        ("exposure", ["served", "holdout", "served"].map(text)),
        ("status", [Value::Null, text("x"), Value::Null]),
        ("latency_us", [Value::Null, Value::Long(3), Value::Null]),
        ("entity.item", [Value::Long(1), Value::Null, Value::Null]),
        ("features.price", [Value::Double(1.5), Value::Null, Value::Null]),
        ("features.tags", [Value::Null, Value::Array(vec![text("a")]), Value::Null]),
        ("prediction.score", [0.9, 0.1, 0.0].map(Value::Double)),
        (
            "decision",
            [
                Value::Null,
                Value::Record(vec![("action".to_owned(), Value::Union(1, Box::new(text("show"))))]),
                Value::Null,
            ],
        ),
    ] {
        assert_eq!(rows.iter().map(|(_, row)| at(row, name)).collect::<Vec<_>>(), values, "{name}");
    }
    assert_eq!([&*rows[0].0.prediction_id, &*rows[1].0.prediction_id], [first, second]);
}

/// Without a request id the rows have that of the first which is right, whoever is sampled out.
#[test]
fn rows_of_one_request_have_one_request_id() {
    let plan = ranking();
    let ids = [id_of(NOW_MS), id_of(NOW_MS), id_of(NOW_MS)];
    let item = |id: &str, score: &str| format!(r#"{{"prediction_id":"{id}","prediction":{{"score":{score}}}}}"#);
    let items = [item(&ids[0], "\"x\""), item(&ids[1], "1"), item(&ids[2], "1")].join(",");
    let body = format!(
        r#"{{"items":[{items}],"shared":{{"model_version":"7","entity":{{"user":"u"}},"features":{{"age":3}}}}}}"#
    );
    let rows = rows(&plan, &mut Scratch::default(), &body).unwrap();
    assert_eq!(rows[0].as_ref().unwrap_err(), &["/items/0/prediction/score wrong_type"]);
    for row in &rows[1..] {
        let (_, datum) = row.as_ref().unwrap();
        let row = decode(plan.prediction_schema(), datum);
        assert_eq!(at(&row, "request_id"), Value::String(ids[1].clone()));
    }
}

#[test]
fn every_fault_has_its_place() {
    let shared =
        r#""shared":{"model_version":"7","request_id":"r","entity":{"user":"u"},"features":{"age":3,"price":null}}"#;
    let items = |items: &str| refused_rows(&format!("{{{shared},\"items\":[{items}]}}"));
    let good = r#"{"prediction":{"score":1}}"#;
    assert_eq!(items(good), [[""; 0]]);
    for (item, faults) in [
        ("3", &["/items/0 not_an_object"][..]),
        ("null", &["/items/0 not_an_object"]),
        ("{}", &["/items/0/prediction/score missing_required"]),
        (r#"{"prediction":null}"#, &["/items/0/prediction/score missing_required"]),
        (r#"{"prediction":{"score":1},"model_version":"8"}"#, &["/items/0/model_version duplicate_key"]),
        (r#"{"prediction":{"score":1},"request_id":null}"#, &["/items/0/request_id duplicate_key"]),
        (r#"{"prediction":{"score":1},"features":{"age":4}}"#, &["/items/0/features/age duplicate_key"]),
        (r#"{"prediction":{"score":1},"features":{"price":4}}"#, &["/items/0/features/price duplicate_key"]),
        (r#"{"prediction":{"score":1,"score":2}}"#, &["/items/0/prediction/score duplicate_key"]),
        (
            r#"{"prediction":{"score":1},"entity":{"itm":4},"x":1,"features":[]}"#,
            &["/items/0/entity/itm unknown_field", "/items/0/x unknown_field", "/items/0/features wrong_type"],
        ),
        (r#"{"prediction":{"score":1},"shared":{}}"#, &["/items/0/shared unknown_field"]),
    ] {
        assert_eq!(items(item), [faults], "{item}");
        // It takes nothing from the others, and they nothing from it.
        assert_eq!(items(&format!("{good},{item},{good}"))[1].len(), faults.len());
        assert_eq!(items(&format!("{item},{good}"))[1], [""; 0], "{item}");
    }
    // What nobody has is missed in each item.
    let rows = refused_rows(
        r#"{"shared":{"features":{"price":1}},"items":[{"prediction":{"score":1}},{"model_version":"1"}]}"#,
    );
    let missing = |place: usize, more: &[&str]| {
        let keys = more.iter().chain(&["/entity/user", "/features/age"]);
        let mut keys: Vec<String> = keys.map(|key| format!("/items/{place}{key} missing_required")).collect();
        keys.sort();
        keys
    };
    let sorted = |mut row: Vec<String>| {
        row.sort();
        row
    };
    assert_eq!(sorted(rows[0].clone()), missing(0, &["/model_version"]));
    assert_eq!(sorted(rows[1].clone()), missing(1, &["/prediction/score"]));
}

#[test]
fn a_fault_of_the_whole_gives_no_row() {
    for (body, faults) in [
        (r#"{"shared":{}}"#, &["/items missing_required"][..]),
        (r#"{"items":[]}"#, &["/items missing_required"]),
        (r#"{"items":null}"#, &["/items wrong_type"]),
        (r#"{"items":{},"x":1}"#, &["/items wrong_type", "/x unknown_field"]),
        (r#"{"items":[{}],"items":[{}]}"#, &["/items duplicate_key"]),
        (r#"{"items":[{}],"model_version":"1"}"#, &["/model_version unknown_field"]),
        (r#"{"items":[{},]}"#, &[" invalid_json"]),
        (r#"{"items":[{}"#, &[" invalid_json"]),
        (r#"{"items":[{"features":{"age":1,}}]}"#, &[" invalid_json"]),
        (r#"{"items":[{}]} x"#, &[" invalid_json"]),
        (r#"{"shared":3,"items":[{}]}"#, &["/shared not_an_object"]),
        (
            r#"{"shared":{"prediction_id":"0","rank":1,"features":{"age":"x"}},"items":[{}]}"#,
            &[
                "/shared/prediction_id invalid_id",
                "/shared/features/age wrong_type",
                "/shared/prediction_id unknown_field",
                "/shared/rank unknown_field",
            ],
        ),
        (r#"{"shared":{"features":{"age":null}},"items":[{}]}"#, &["/shared/features/age missing_required"]),
    ] {
        assert_eq!(rows(&ranking(), &mut Scratch::default(), body).unwrap_err(), faults, "{body}");
    }
    // Null is no shared part.
    assert_eq!(refused_rows(r#"{"shared":null,"items":[3]}"#), [["/items/0 not_an_object"]]);
    for body in ["", "{", "[]", r#"{"model_version":"1","items":[]}"#, r#"{"sharedd":1}"#, r#" {"item":1}"#] {
        assert!(!Candidates::are_in(body.as_bytes()), "{body}");
    }
}

#[test]
fn a_key_of_the_shared_part_samples_all_items() {
    let mut contract = flights();
    contract.entity[0].required = true;
    contract.features = vec![];
    contract.sampling = Sampling { rate: 0.5, key: "tail_number".to_owned(), keep: vec![] };
    let plan = plan(contract);
    let mut outs = std::collections::BTreeSet::new();
    for n in 0..20 {
        for (shared, own) in [
            (format!(r#","entity":{{"tail_number":"N{n}"}}"#), ""),
            (format!(r#","entity":{{"tail_number":"N{n}"}}"#), r#","entity":{"leg":3}"#),
        ] {
            let item = format!(r#"{{"prediction":{{"late_probability":1}}{own}}}"#);
            let body = format!(r#"{{"shared":{{"model_version":"1"{shared}}},"items":[{item},{item}]}}"#);
            let is_in = flywheel_schemas::sampling::is_in(format!("N{n}").as_bytes(), 0.5);
            for row in rows(&plan, &mut Scratch::default(), &body).unwrap() {
                assert_eq!(row.unwrap().0.sampled_out, !is_in);
                outs.insert(is_in);
            }
        }
    }
    assert_eq!(outs.len(), 2);
}

/// The keys of a row with their JSON, by block; the first is the envelope.
fn members() -> Vec<(usize, &'static str, &'static str)> {
    vec![
        (0, "model_version", r#""7""#),
        (0, "variant", r#""b\u0041""#),
        (0, "request_id", r#""r""#),
        (0, "status", "null"),
        (1, "user", r#""u1""#),
        (1, "item", "-7"),
        (2, "age", "30"),
        (2, "price", "2.5e3"),
        (2, "tags", r#"["a","b"]"#),
        (2, "phone", r#""555""#),
        (3, "score", "0.25"),
        (4, "action", r#""show""#),
        (5, "page", "null"),
    ]
}

/// The object of the members that are chosen, in their order.
fn object(chosen: &[(usize, &str, &str)]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (block, name) in ["", "entity", "features", "prediction", "decision", "context"].into_iter().enumerate() {
        let of: Vec<String> = chosen
            .iter()
            .filter(|member| member.0 == block)
            .map(|(_, key, value)| format!("\"{key}\":{value}"))
            .collect();
        match block {
            0 => parts.extend(of),
            _ if of.is_empty() => {}
            _ => parts.push(format!("\"{name}\":{{{}}}", of.join(","))),
        }
    }
    format!("{{{}}}", parts.join(","))
}

proptest! {
    /// However the keys are dealt out, and in whatever order they stand, an item is the prediction that it says together
    /// with what is shared.
    #[test]
    fn an_item_is_the_prediction_that_says_it_all(
        deal in prop::collection::vec(0..3_u8, 13),
        order in Just((0..13).collect::<Vec<usize>>()).prop_shuffle(),
        second in prop::collection::vec(any::<bool>(), 13),
    ) {
        let plan = ranking();
        let all = members();
        let id = "013b0000-0000-7000-8000-000000000001";
        let mut scratch = Scratch::default();
        // 0: shared, 1: the item's, 2: nobody's.
        let chosen = |of: &dyn Fn(usize) -> bool| {
            let members: Vec<_> = order.iter().filter(|place| of(**place)).map(|place| all[*place]).collect();
            object(&members)
        };
        let own = |text: String| match text.as_str() {
            "{}" => format!("{{\"prediction_id\":\"{id}\",\"rank\":4}}"),
            other => format!("{{\"prediction_id\":\"{id}\",\"rank\":4,{}", &other[1..]),
        };
        let is_second = |place: usize| deal[place] == 1 && second[place];
        let items = [own(chosen(&|place| deal[place] == 1)), own(chosen(&is_second))];
        let body = format!("{{\"shared\":{},\"items\":[{},{}]}}", chosen(&|place| deal[place] == 0), items[0], items[1]);
        let found = rows(&plan, &mut scratch, &body);
        let wholes = [
            own(chosen(&|place| deal[place] < 2)),
            own(chosen(&|place| deal[place] == 0 || is_second(place))),
        ];
        let found = found.map_err(|faults| TestCaseError::fail(format!("{body}: {faults:?}")))?;
        let has_request = deal[2] == 0;
        for (place, (whole, found)) in wholes.iter().zip(found).enumerate() {
            // Where nobody gives one, the request id is that of the first item.
            let gives = has_request || whole.contains("\"request_id\"");
            let whole = if gives { whole.clone() } else { whole.replace("{\"prediction_id\"", &format!("{{\"request_id\":\"{id}\",\"prediction_id\"")) };
            let mut out = Vec::new();
            let expected = prediction(&plan, &mut Scratch::default(), whole.as_bytes(), &RECEIPT, &mut out);
            match (expected, found) {
                (Ok(served), Ok((found, datum))) => {
                    prop_assert_eq!(served, found);
                    prop_assert_eq!(&out, &datum, "{} {}", body, whole);
                }
                (Err(faults), Err(found)) => {
                    let mut faults: Vec<String> = in_short(&faults).iter().map(|fault| format!("/items/{place}{fault}")).collect();
                    let mut found = found;
                    faults.sort();
                    found.sort();
                    prop_assert_eq!(faults, found, "{}", body);
                }
                (expected, found) => prop_assert!(false, "{body}: {expected:?} but {found:?}"),
            }
        }
    }
}
