//! What a record costs in allocations once the buffers have grown: none, however many fields it has. The allocator of this
//! binary counts; it has a binary of its own so that nothing else is counted.

use std::sync::Arc;

use allocation_counter::measure;
use flywheel_schemas::contract::Contract;
use flywheel_sidecar::transcode::{Candidates, Plan, Receipt, Scratch, outcome, prediction};

const RECEIPT: Receipt<'static> =
    Receipt { now_ms: 1_717_200_000_000, trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736") };

/// A hundred features of every kind, some of them private.
fn plan() -> Plan {
    let types =
        ["double", "double", "double", "long", "string", "boolean", "float", "timestamp", "list<double>", "int"];
    let features = (0..100).map(|n| match n {
        97 => "  f97: {type: string, privacy: drop}\n".to_owned(),
        98 => "  f98: {type: string, privacy: mask}\n".to_owned(),
        99 => "  f99: {type: \"decimal(10,2)\"}\n".to_owned(),
        n => format!("  f{n}: {{type: \"{}\"}}\n", types[n % types.len()]),
    });
    let text = format!(
        "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\nentity: {{user: {{type: string}}}}\nfeatures:\n{}\
         prediction: {{score: {{type: double, required: true}}}}\nlabels:\n  won: {{type: boolean, window: 1h, lateness: 20m, \
         aggregate: any}}\n",
        features.collect::<String>()
    );
    Plan::compile(Arc::new(Contract::parse(&text).unwrap_or_else(|faults| panic!("{faults:?}")))).unwrap()
}

fn features(order: impl Iterator<Item = usize>) -> String {
    let values = [
        "0.1",
        "-1.5e-3",
        "123456.789012345678",
        "-42",
        "\"a\\u00fc\\n\"",
        "true",
        "0.25",
        "1717200000000000",
        "[1,2.5,NaN]",
        "7",
    ];
    let members = order.map(|n| match n {
        97 | 98 => format!("\"f{n}\":\"secret\""),
        99 => "\"f99\":\"12.50\"".to_owned(),
        n => format!("\"f{n}\":{}", values[n % values.len()]),
    });
    members.collect::<Vec<_>>().join(",")
}

/// How often `work` allocates when it is done for the third time.
fn allocations(mut work: impl FnMut()) -> u64 {
    work();
    work();
    measure(work).count_total
}

#[test]
fn a_record_of_a_hundred_features_allocates_nothing() {
    let plan = plan();
    let (mut scratch, mut datum) = (Scratch::default(), Vec::new());
    for (name, features) in [
        ("in order", features(0..100)),
        ("in another order", features((0..100).map(|n| n * 37 % 100))),
        ("with gaps", features((0..100).step_by(3))),
    ] {
        let body = format!(
            r#"{{"request_id":"r","model_version":"7","entity":{{"user":"u"}},"features":{{{features}}},"prediction":{{"score":0.5}}}}"#
        );
        let count = allocations(|| {
            datum.clear();
            prediction(&plan, &mut scratch, body.as_bytes(), &RECEIPT, &mut datum).unwrap();
        });
        assert_eq!(count, 0, "{name}");

        // The lines of a batch are read where they stand.
        let batch = vec![body.as_str(); 50].join("\n");
        let count = allocations(|| {
            for line in batch.as_bytes().split(|byte| *byte == b'\n') {
                datum.clear();
                prediction(&plan, &mut scratch, line, &RECEIPT, &mut datum).unwrap();
            }
        });
        assert_eq!(count, 0, "{name}, in a batch");
    }
}

#[test]
fn an_outcome_allocates_nothing() {
    let plan = plan();
    let (mut scratch, mut datum) = (Scratch::default(), Vec::new());
    let body = r#"{"prediction_id":"018fd0a2-7400-7000-8000-000000000001","labels":{"won":true},"source":"s"}"#;
    let count = allocations(|| {
        datum.clear();
        outcome(&plan, &mut scratch, body.as_bytes(), &RECEIPT, &mut datum).unwrap();
    });
    assert_eq!(count, 0);
}

/// What is shared costs some, an item nothing.
#[test]
fn a_candidate_allocates_nothing() {
    let plan = plan();
    let (mut scratch, mut datum) = (Scratch::default(), Vec::new());
    let item = format!(r#"{{"features":{{{}}},"prediction":{{"score":0.5}}}}"#, features(50..100));
    let body = format!(
        r#"{{"shared":{{"model_version":"7","features":{{{}}}}},"items":[{}]}}"#,
        features(0..50),
        vec![item.as_str(); 20].join(",")
    );
    let candidates = Candidates::find(&plan, &mut scratch, body.as_bytes(), 100).unwrap();
    let mut group = candidates.group(&plan, &mut scratch).unwrap();
    let count = allocations(|| {
        for place in 0..20 {
            datum.clear();
            candidates.item(&plan, &mut scratch, &mut group, place, &RECEIPT, &mut datum).unwrap();
        }
    });
    assert_eq!(count, 0);
}
