use serde_json::json;

use super::*;
use crate::contract::{Condition, Keep, Scalar};

/// Every key that a contract may have.
pub(crate) const FULL: &str = r#"
apiVersion: flywheel/v1
kind: ModelContract
model: flight_delay
version: 3
owner: ops-ml
description: Will this flight arrive more than 15 minutes late? Predicted at take-off.
successor_of: flight_lateness
entity:
  tail_number: {type: string}
  origin: {type: string, required: true}
views:    {weather_hourly: {store: feast, keys: {origin: origin}, ttl: 10m, max_age: 2h, deadline: 5ms, owner: met}}
features:
  dep_delay_min: {type: int, unit: min, required: true, expect: {min: -60, max: 2000}}
  carrier:       {type: string, kind: categorical}
  wind_mph:      {type: double, view: weather_hourly, unit: mph, description: Latest hourly observation at the origin}
  card_number:   {type: string, privacy: hmac}
  embedding:     {type: list<float>, kind: "embedding[32]"}
prediction:
  late_probability: {type: double, required: true}
  verdict: {type: string}
  is_long: {type: boolean}
decision:   {action: {type: string}, propensity: {type: double}}
context:    {session: {type: string}}
labels:
  landed:    {type: boolean, window: 12h, lateness: 1h, aggregate: any, default: false}
  arr_delay: {type: double,  window: 12h, lateness: 1h, aggregate: last, gate: {rate: 0.2}}
  fuel_kg:   {type: "decimal(10,2)", window: 1d, lateness: 20m, aggregate: sum, default: "0.50", gate: {progress: fuel}}
  refund:    {type: boolean, window: 30d, lateness: 2d, aggregate: any, default: false, requires: landed, owner: batch}
seal:     {when: "label:landed", grid: 5m, drain: 10m, horizon: 7d}
ids:      caller
sampling:
  rate: 0.25
  key: origin
  keep:
    - {field: late_probability, min: 0.8, rate: 1}
    - {field: verdict, equals: "1", rate: 0.5}
    - {field: is_long, equals: true, rate: 0.75}
point_in_time: {name: take_off, max_feature_ahead: 0s}
dead_letter_body: true
"#;

/// The least contract, to which a case adds one wrong thing.
fn least(more: &str) -> String {
    format!("apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\n{more}")
}

fn faults(yaml: &str) -> Vec<String> {
    Contract::parse(yaml).expect_err(yaml).iter().map(ToString::to_string).collect()
}

#[test]
fn the_full_contract_is_read() {
    let checked = Contract::check(FULL);
    assert_eq!(checked.warnings, []);
    let contract = checked.result.unwrap();
    assert_eq!((contract.model.as_str(), contract.version), ("flight_delay", 3));
    assert_eq!(contract.successor_of.as_deref(), Some("flight_lateness"));
    let names: Vec<_> = contract.features.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["dep_delay_min", "carrier", "wind_mph", "card_number", "embedding"]);
    let delay = &contract.features[0];
    assert!(delay.required);
    assert_eq!(delay.expect, Some(Expect { min: Some(-60.0), max: Some(2000.0) }));
    assert_eq!(contract.features[3].privacy, Privacy::Hmac);
    assert_eq!(contract.features[4].ty, Type::List(Box::new(Type::Float)));
    let view = &contract.views[0];
    assert_eq!(view.keys, [("origin".to_owned(), "origin".to_owned())]);
    assert_eq!((view.ttl_ms, view.max_age_ms, view.deadline_ms), (Some(600_000), Some(7_200_000), Some(5)));
    assert_eq!(contract.labels[0].default, Some(Scalar::Boolean(false)));
    assert_eq!(contract.labels[1].gate, Some(Gate::Rate { per_prediction: 0.2 }));
    assert_eq!(contract.labels[2].default, Some(Scalar::Decimal(50)));
    assert_eq!(contract.labels[3].owner, LabelOwner::Batch);
    assert_eq!(contract.seal.when, SealWhen::Label("landed".to_owned()));
    assert_eq!(contract.longest_ms(), 87_600_000);
    assert_eq!(contract.seal_ms(), 46_800_000);
    assert_eq!(contract.ids, Ids::Caller);
    let keep = |field: &str, condition, rate| Keep { field: field.to_owned(), condition, rate };
    let rules = vec![
        keep("late_probability", Condition::Between { min: Some(0.8), max: None }, 1.0),
        keep("verdict", Condition::Equals(Scalar::String("1".to_owned())), 0.5),
        keep("is_long", Condition::Equals(Scalar::Boolean(true)), 0.75),
    ];
    assert_eq!(contract.sampling, Sampling { rate: 0.25, key: "origin".to_owned(), keep: rules });
    assert!(contract.dead_letter_body);
}

#[test]
fn what_is_left_out_has_its_default() {
    let contract = Contract::parse(&least("features:\nlabels: {}\n")).unwrap();
    assert_eq!(contract.seal, SEAL);
    assert_eq!(contract.ids, Ids::Minted);
    assert_eq!(contract.sampling, Sampling::all());
    assert!(!contract.dead_letter_body && contract.features.is_empty());
}

#[test]
fn json_gives_the_contract_back_in_any_order_of_keys() {
    fn reordered(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, reordered(value))).collect();
                entries.sort_by(|a, b| b.0.cmp(&a.0));
                Value::Object(entries.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(reordered).collect()),
            other => other,
        }
    }
    for text in [FULL.to_owned(), least("")] {
        let contract = Contract::parse(&text).unwrap();
        let json: Value = serde_json::from_str(&reordered(contract.to_json()).to_string()).unwrap();
        assert_eq!(Contract::from_json(&json), Ok(contract));
    }
}

#[test]
fn every_fault_is_told_at_once_with_its_line() {
    let text = least(
        "ownr: me
features:
  Carrier: {type: strin}
  wind: {type: double, view: weather, colour: red}
labels:
  late: {type: boolean, window: 12, lateness: 1h, aggregate: most}
  late: {type: boolean, window: 12h, lateness: 1h, aggregate: sum}
seal: {grid: 7m}
sampling: {rate: 0}
",
    );
    let lines: Vec<(usize, String)> =
        Contract::parse(&text).unwrap_err().into_iter().map(|fault| (fault.line, fault.path)).collect();
    let expected = [
        (5, "ownr"),
        (7, "features.Carrier"),
        (7, "features.Carrier.type"),
        (8, "features.wind.colour"),
        (8, "features.wind"),
        (10, "labels.late"),
        (11, "late"),
        (12, "seal.grid"),
        (13, "sampling.rate"),
    ];
    assert_eq!(lines, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn json_faults_have_no_line() {
    let faults = Contract::from_json(&json!({"apiVersion": "flywheel/v1", "kind": "ModelContract", "model": 1}));
    let faults: Vec<String> = faults.unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with("model: `1` is no name"), "{faults:?}");
}

/// One wrong thing each, with the path and a piece of the sentence.
#[test]
fn each_rule_is_kept() {
    let label = |rest: &str| format!("labels:\n  l: {{window: 1h, lateness: 1h, {rest}}}\n");
    let feature = |rest: &str| format!("features:\n  f: {{{rest}}}\n");
    let keep = |rest: &str| {
        format!(
            "prediction: {{n: {{type: int}}, t: {{type: string}}, b: {{type: boolean}}, d: {{type: date}}, s: {{type: \
             string, privacy: mask}}}}\nsampling:\n  keep:\n  - {{{rest}}}\n"
        )
    };
    let cases = [
        ("owner: [a]".to_owned(), "owner: found a list"),
        ("features: 3".to_owned(), "features: found `3`"),
        ("features: {f: string}".to_owned(), "features.f: found `string`; write a mapping"),
        ("features: {f: {}}".to_owned(), "features.f: `type` is missing"),
        (feature("type: list<list<int>>"), "features.f.type: "),
        (feature("type: \"decimal(39,2)\""), "decimal takes a precision"),
        (feature("type: int, required: yes"), "features.f.required: found `yes`; write true or false"),
        (feature("type: int, required: \"true\""), "features.f.required"),
        (feature("type: int, privacy: hash"), "one of none, drop, mask, hmac"),
        (feature("type: int, privacy: hmac"), "features.f.privacy: mask and hmac"),
        (feature("type: string, expect: {min: 1}"), "features.f.expect: a range needs an int"),
        (feature("type: int, expect: {min: 3, max: 1}"), "min is greater"),
        (feature("type: int, expect: {}"), "a range needs min, max or both"),
        (feature("type: int, expect: {min: .nan}"), "features.f.expect.min"),
        (feature("type: int, view: v"), "there is no view `v`"),
        ("entity: {e: {type: int, view: v}}".to_owned(), "entity.e.view: unknown key"),
        ("features: {as_of: {type: int}}".to_owned(), "its column `as_of` is a system column already"),
        ("features: {label_x: {type: int}}".to_owned(), "`label_` begins the columns of labels"),
        ("context: {prediction_x: {type: int}}".to_owned(), "`prediction_` begins"),
        ("features: {flywheel_x: {type: int}}".to_owned(), "`flywheel_` begins"),
        ("prediction: {id: {type: int}}".to_owned(), "its column `prediction_id` is a system column"),
        (
            "entity: {a: {type: int}}\ncontext: {a: {type: int}}".to_owned(),
            "context.a: its column `a` is that of entity.a already",
        ),
        (
            "labels:\n  a: {type: long, window: 1h, lateness: 1h, aggregate: count}\n  a_at: {type: long, window: 1h, \
             lateness: 1h, aggregate: count}"
                .to_owned(),
            "labels.a_at: its column `label_a_at` is that of labels.a",
        ),
        ("entity: {b: {type: int}}\nviews: {v: {keys: {a: b}}}".to_owned(), "views.v: `store` is missing"),
        ("views: {v: {store: feast, keys: {a: b}}}".to_owned(), "views.v: the key `a` is `b`"),
        ("views: {v: {store: feast, keys: {}}}".to_owned(), "at least one key"),
        (
            "entity: {a: {type: int}}\nviews: {v: {store: s, keys: {a: a}, ttl: 2h, max_age: 1h}}".to_owned(),
            "ttl is longer",
        ),
        (label("type: double, aggregate: any"), "labels.l: any and all work on boolean"),
        (label("type: int, aggregate: all"), "labels.l: any and all work on boolean"),
        (label("type: int, aggregate: count"), "a count is a long"),
        (label("type: double, aggregate: sum"), "a sum needs int, long or decimal"),
        (label("type: bytes, aggregate: min"), "min and max need a type with an order"),
        (label("type: list<int>, aggregate: last"), "a label is a single value"),
        (label("type: int"), "labels.l: `aggregate` is missing"),
        (label("type: int, aggregate: last, default: 1.5"), "labels.l.default: `1.5` is no int"),
        (label("type: boolean, aggregate: any, default: 0"), "labels.l.default: `0` is no boolean"),
        (label("type: int, aggregate: last, requires: x"), "it requires `x`, which is no label"),
        (label("type: boolean, aggregate: any, requires: l"), "it requires itself"),
        (label("type: int, aggregate: last, owner: me"), "one of streaming, batch"),
        (label("type: int, aggregate: last, gate: {}"), "a gate is either"),
        (label("type: int, aggregate: last, gate: {rate: 0}"), "labels.l.gate.rate: a rate is the least number"),
        (label("type: int, aggregate: last, gate: {rate: {min_ratio: 0.5}}"), "found a mapping; write a number"),
        (label("type: int, aggregate: last, gate: {rate: 1, progress: s}"), "a gate is either"),
        (label("type: int, aggregate: last, gate: {progress: Returns}"), "`Returns` is no name"),
        (label("type: int, aggregate: last, owner: batch, gate: {progress: s}"), "a batch label has none"),
        (
            "labels: {l: {type: int, window: 0s, lateness: 1h, aggregate: last}}".to_owned(),
            "labels.l.window: an empty window",
        ),
        ("labels: {l: {type: int, window: 1h, aggregate: last}}".to_owned(), "`lateness` is missing"),
        ("seal: {when: never}".to_owned(), "seal.when: found `never`"),
        ("seal: {when: \"label:x\"}".to_owned(), "seal: `when` names the label `x`"),
        ("seal: {grid: 7m}".to_owned(), "the grid must divide a day"),
        ("seal: {grid: 0s}".to_owned(), "the grid must divide a day"),
        ("seal: {drain: 10}".to_owned(), "`10` is no duration"),
        ("ids: mine".to_owned(), "one of minted, caller"),
        ("sampling: {rate: 1.5}".to_owned(), "sampling.rate: a rate is more than 0"),
        ("sampling: {rate: 0}".to_owned(), "sampling.rate: a rate is more than 0"),
        ("sampling: {key: f}".to_owned(), "sampling: the key `f` is neither"),
        ("entity: {e: {type: string}}\nsampling: {key: e}".to_owned(), "may be absent"),
        ("entity: {e: {type: double, required: true}}\nsampling: {key: e}".to_owned(), "must be a string"),
        ("entity: {e: {type: string, required: true, privacy: drop}}\nsampling: {key: e}".to_owned(), "is private"),
        ("sampling: {keep: 3}".to_owned(), "sampling.keep: found `3`; write a list"),
        (keep("field: n, rate: 1"), "sampling.keep.0: the rule says of no value that it holds"),
        (keep("field: n, min: 1"), "sampling.keep.0: `rate` is missing"),
        (keep("min: 1, rate: 1"), "sampling.keep.0: `field` is missing"),
        (keep("field: x, min: 1, rate: 1"), "sampling.keep.0.field: `x` is no field of prediction"),
        (keep("field: n, min: 1, rate: 0"), "sampling.keep.0.rate: a rate is more than 0"),
        (keep("field: n, min: 1, rate: 1.1"), "sampling.keep.0.rate: a rate is more than 0"),
        (keep("field: n, min: one, rate: 1"), "sampling.keep.0.min: found `one`"),
        (keep("field: n, min: 2, max: 1, rate: 1"), "sampling.keep.0: min is greater than max"),
        (keep("field: n, equals: 1, rate: 1"), "sampling.keep.0: equals needs a boolean or a string"),
        (keep("field: t, min: 1, rate: 1"), "sampling.keep.0: min and max need an int"),
        (keep("field: d, min: 1, rate: 1"), "sampling.keep.0: min and max need an int"),
        (keep("field: t, min: 1, equals: a, rate: 1"), "sampling.keep.0: a rule has either"),
        (keep("field: b, equals: \"true\", rate: 1"), "sampling.keep.0.equals: `true` is no boolean"),
        (keep("field: s, equals: a, rate: 1"), "sampling.keep.0: the field is private"),
        (keep("field: n, mni: 1, min: 1, rate: 1"), "sampling.keep.0.mni: unknown key"),
        ("point_in_time: {}".to_owned(), "point_in_time: `name` is missing"),
        ("dead_letter_body: true".to_owned(), "no field is private"),
        ("successor_of: m".to_owned(), "cannot succeed itself"),
        ("a: &x 1\nb: *x".to_owned(), "anchors are not supported"),
        ("owner: !!str me".to_owned(), "tags are not supported"),
        ("owner: \"me".to_owned(), "not YAML"),
        ("---\nowner: me".to_owned(), "one contract per file"),
        (format!("owner: {}", "[".repeat(100_000)), "nested too deeply"),
        ("- ".repeat(100_000), "nested too deeply"),
    ];
    for (more, expected) in cases {
        let faults = faults(&least(&more));
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected:?} is not in {faults:?}");
        assert_eq!(faults.len(), 1, "{faults:?}");
    }
}

#[test]
fn every_fault_of_the_rules_is_told_with_its_line() {
    let text = least(
        "prediction: {p: {type: double}}
sampling:
  rate: 2
  keep:
    - {field: p, min: 0.8, rate: 1}
    - {field: q, min: 0.8, rate: 1}
    - {field: p, rate: 0}
",
    );
    let lines: Vec<(usize, String)> =
        Contract::parse(&text).unwrap_err().into_iter().map(|fault| (fault.line, fault.path)).collect();
    let expected =
        [(7, "sampling.rate"), (10, "sampling.keep.1.field"), (11, "sampling.keep.2.rate"), (11, "sampling.keep.2")];
    assert_eq!(lines, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn the_head_is_checked() {
    for (text, expected) in [
        ("", "`apiVersion` is missing"),
        ("a", "a contract is a mapping"),
        ("[a]", "a contract is a mapping"),
        ("apiVersion: flywheel/v2\nkind: ModelContract\nmodel: m\nversion: 1", "apiVersion: found `flywheel/v2`"),
        ("apiVersion: flywheel/v1\nkind: Model\nmodel: m\nversion: 1", "kind: found `Model`"),
        ("apiVersion: flywheel/v1\nkind: ModelContract\nmodel: M-1\nversion: 1", "`M-1` is no name"),
        ("apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 0", "a version is at least 1"),
        ("apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: one", "version: found `one`"),
    ] {
        let faults = faults(text);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected:?} is not in {faults:?}");
    }
}

#[test]
fn circles_of_requires_are_found() {
    let label = |name: &str, requires: &str| {
        format!("  {name}: {{type: boolean, window: 1h, lateness: 1h, aggregate: any, requires: {requires}}}\n")
    };
    let text = least(&format!("labels:\n{}{}{}", label("a", "b"), label("b", "a"), label("c", "a")));
    let faults = faults(&text);
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn a_required_label_must_be_a_boolean_that_streams() {
    let required = |rest: &str| {
        least(&format!(
            "labels:\n  a: {{window: 1h, lateness: 1h, {rest}}}\n  b: {{type: int, window: 1h, lateness: 1h, \
             aggregate: last, requires: a}}\n"
        ))
    };
    assert!(Contract::parse(&required("type: boolean, aggregate: any")).is_ok());
    assert!(faults(&required("type: int, aggregate: last"))[0].contains("no boolean"));
    assert!(faults(&required("type: boolean, aggregate: any, owner: batch"))[0].contains("a batch job computes"));
}

#[test]
fn a_short_lateness_is_a_warning() {
    let label = |lateness: &str, drain: &str| {
        Contract::check(&least(&format!(
            "labels: {{l: {{type: int, window: 1h, lateness: {lateness}, aggregate: last}}}}\nseal: {{drain: {drain}}}\n"
        )))
    };
    let short = label("14m", "10m");
    assert!(short.result.is_ok());
    assert_eq!(short.warnings.len(), 1);
    assert!(short.warnings[0].to_string().starts_with("line 5: labels.l: a lateness under 15m"), "{short:?}");
    assert!(label("15m", "10m").warnings.is_empty());
}
