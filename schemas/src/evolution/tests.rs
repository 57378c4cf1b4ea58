use super::*;

const OLD: &str = r#"
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
entity: {user: {type: string}}
features:
  a: {type: int, unit: min}
  b: {type: "decimal(10,2)"}
  secret: {type: string, privacy: hmac}
prediction: {p: {type: double}}
labels:
  paid: {type: boolean, window: 1d, lateness: 1h, aggregate: any, default: false}
  spent: {type: double, window: 1d, lateness: 1h, aggregate: last, default: 0}
"#;

fn contract(changes: &[(&str, &str)]) -> Contract {
    let mut text = OLD.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    Contract::parse(&text).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
}

fn next(changes: &[(&str, &str)]) -> Contract {
    contract(&[&[("version: 1", "version: 2")], changes].concat())
}

fn refused(changes: &[Change]) -> Vec<&str> {
    changes.iter().filter(|change| !change.is_compatible()).map(|change| change.path.as_str()).collect()
}

#[test]
fn the_same_is_no_change() {
    assert_eq!(diff(&contract(&[]), &contract(&[])), []);
    assert_eq!(diff(&contract(&[]), &next(&[])), []);
}

#[test]
fn what_may_change() {
    let old = contract(&[]);
    for (from, to, path) in [
        ("features:\n", "features:\n  c: {type: long}\n", "features.c"),
        ("  a: {type: int, unit: min}\n", "", "features.a"),
        ("labels:\n", "labels:\n  n: {type: long, window: 1h, lateness: 1h, aggregate: count}\n", "labels.n"),
        ("  paid: {type: boolean, window: 1d, lateness: 1h, aggregate: any, default: false}\n", "", "labels.paid"),
        ("prediction:", "context: {s: {type: string}}\nprediction:", "context.s"),
        ("unit: min", "unit: s", "features.a.unit"),
        ("unit: min", "description: d, unit: min", "features.a.description"),
        ("unit: min", "required: true, unit: min", "features.a"),
        ("unit: min", "expect: {min: 0}, unit: min", "features.a.expect"),
        ("privacy: hmac", "privacy: drop", "features.secret.privacy"),
        ("aggregate: any", "gate: {progress: s}, aggregate: any", "labels.paid.gate"),
        ("model: m", "model: m\nowner: me", "owner"),
        ("model: m", "model: m\nsampling: {rate: 0.5}", "sampling"),
        ("model: m", "model: m\nsampling: {keep: [{field: p, min: 0.5, rate: 1}]}", "sampling"),
    ] {
        let changes = diff(&old, &next(&[(from, to)]));
        assert_eq!(refused(&changes), [] as [&str; 0], "{to}: {changes:?}");
        assert!(changes.iter().any(|change| change.path == path), "{path}: {changes:?}");
    }
}

#[test]
fn what_may_not_change() {
    let old = contract(&[]);
    for (from, to, path) in [
        ("type: int", "type: long", "features.a.type"),
        ("decimal(10,2)", "decimal(10,3)", "features.b.type"),
        ("decimal(10,2)", "decimal(12,2)", "features.b.type"),
        ("privacy: hmac", "privacy: mask", "features.secret.privacy"),
        ("{user: {type: string}}", "{user: {type: long}}", "entity.user.type"),
        // Moved to another block, where it has the same column.
        ("entity: {user: {type: string}}", "context: {user: {type: long}}", "context.user.type"),
        ("type: boolean, window: 1d", "type: boolean, window: 2d", "labels.paid.window"),
        ("type: boolean, window: 1d, lateness: 1h", "type: boolean, window: 1d, lateness: 2h", "labels.paid.lateness"),
        ("aggregate: any", "aggregate: all", "labels.paid.aggregate"),
        ("default: false", "default: true", "labels.paid.default"),
        (", default: false", "", "labels.paid.default"),
        ("aggregate: any", "owner: batch, aggregate: any", "labels.paid.owner"),
        ("aggregate: last", "requires: paid, aggregate: last", "labels.spent.requires"),
        (
            "type: double, window: 1d, lateness: 1h, aggregate: last",
            "type: int, window: 1d, lateness: 1h, aggregate: last",
            "labels.spent.type",
        ),
        ("model: m", "model: m\nids: caller", "ids"),
        ("model: m", "model: m\nseal: {grid: 10m}", "seal.grid"),
        ("model: m", "model: m\nseal: {drain: 5m}", "seal.drain"),
        ("model: m", "model: m\nseal: {horizon: 1d}", "seal.horizon"),
        ("model: m", "model: m\nseal: {when: \"label:paid\"}", "seal.when"),
        ("model: m", "model: n", "model"),
    ] {
        let changes = diff(&old, &next(&[(from, to)]));
        assert_eq!(refused(&changes), [path], "{to}: {changes:?}");
    }
}

#[test]
fn a_change_needs_a_greater_version() {
    let (old, changed) = (contract(&[]), contract(&[("unit: min", "unit: s")]));
    assert_eq!(refused(&diff(&old, &changed)), ["version"]);
    assert_eq!(refused(&diff(&next(&[]), &changed)), ["version"]);
}

#[test]
fn a_dropped_name_comes_back_only_as_it_was() {
    let without = next(&[("  b: {type: \"decimal(10,2)\"}\n", "")]);
    let history = [contract(&[]), without];
    let third = |b: &str| {
        contract(&[("version: 1", "version: 3"), ("  b: {type: \"decimal(10,2)\"}\n", b), ("unit: min", "unit: h")])
    };
    assert_eq!(refused(&diff(&history[1], &third("  b: {type: \"decimal(10,3)\"}\n"))), [] as [&str; 0]);
    assert_eq!(refused(&admit(&history, &third("  b: {type: \"decimal(10,3)\"}\n"))), ["features.b.type"]);
    assert_eq!(refused(&admit(&history, &third("  b: {type: \"decimal(10,2)\"}\n"))), [] as [&str; 0]);
}

#[test]
fn a_known_version_has_one_content() {
    let history = [contract(&[]), next(&[("unit: min", "unit: s")])];
    assert_eq!(admit(&history, &history[0]), []);
    assert_eq!(admit(&history, &history[1]), []);
    let changes = admit(&history, &next(&[("unit: min", "unit: h")]));
    assert_eq!(refused(&changes), ["version"]);
    assert!(changes.iter().any(|change| change.message.contains("registered with another content")), "{changes:?}");
    // A version in between that was left out cannot be filled in later.
    let history = [contract(&[]), contract(&[("version: 1", "version: 3"), ("unit: min", "unit: s")])];
    assert_eq!(refused(&admit(&history, &next(&[("unit: min", "unit: h")]))), ["version"]);
    assert_eq!(admit(&[], &contract(&[])), []);
}
