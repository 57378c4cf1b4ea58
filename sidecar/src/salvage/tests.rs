use std::process::ExitCode;

use clap::Parser;
use flywheel_spool::{Options, SchemaKey};
use serde_json::{Value, json};

use super::*;
use crate::config::{Args as Arguments, Tool};
use crate::record::{Envelope, RecordKind};
use crate::transcode::avro::{put_bytes, put_long};

const SCHEMA: &str =
    r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"},{"name":"s","type":"string"}]}"#;

/// By the command line, as the binary does it: exit code, output, faults.
fn call(arguments: &[&str]) -> (ExitCode, String, String) {
    let arguments = Arguments::try_parse_from(["spool"].iter().chain(arguments)).unwrap();
    let Some(Tool::Spool(look)) = arguments.tool else { panic!("no look") };
    let (mut out, mut faults) = (Vec::new(), Vec::new());
    let code = run(&look, &mut out, &mut faults);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(faults).unwrap())
}

fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

fn append(spool: &flywheel_spool::Spool, schema: SchemaKey, kind: RecordKind, seq: u64) {
    let mut datum = Vec::new();
    put_long(&mut datum, seq as i64);
    put_bytes(&mut datum, format!("text {seq}").as_bytes());
    let envelope = Envelope {
        kind,
        time_ms: 1_357_034_400_000 + seq as i64,
        producer_id: [7; 16],
        producer_seq: seq,
        key: b"key",
        event_id: b"event",
        traceparent: None,
        datum: &datum,
    };
    drop(spool.append(schema, |_, out| envelope.write(out)).unwrap());
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Ten predictions and two outcomes, of which four are forwarded; and a second spool.
fn fill(dir: &Path) -> flywheel_spool::Spool {
    let other = flywheel_spool::Spool::open(&dir.join("other"), Options::default()).unwrap();
    append(&other, SchemaKey(77), RecordKind::Prediction, 1);
    other.close().unwrap();
    std::fs::create_dir(dir.join("no-spool")).unwrap();
    let spool = flywheel_spool::Spool::open(&dir.join("m"), Options::default()).unwrap();
    let schema = spool.add_schema(SCHEMA).unwrap();
    (1..=10).for_each(|seq| append(&spool, schema, RecordKind::Prediction, seq));
    (1..=2).for_each(|seq| append(&spool, schema, RecordKind::Outcome, seq));
    drop(spool.append(SchemaKey::NONE, |_, out| out.extend_from_slice(b"junk")).unwrap());
    futures::executor::block_on(spool.sync()).unwrap();
    spool.advance(4, b"").unwrap();
    spool
}

#[test]
fn a_spool_in_use_is_told_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let spool = fill(dir.path());
    let model = dir.path().join("m");
    let (exit, out, faults) = call(&["inspect", model.to_str().unwrap()]);
    assert_eq!((exit, faults.as_str()), (code(0), ""));
    let id = "07070707-0707-0707-0707-070707070707";
    for line in [
        "records         13 of".to_owned(),
        ", sequences 0 to 12".to_owned(),
        "received        2013-01-01T10:00:00.001Z to 2013-01-01T10:00:00.010Z".to_owned(),
        "cursor          4\n".to_owned(),
        "not forwarded   9: 2 outcome, 6 prediction, 1 unreadable".to_owned(),
        format!("{id} outcome 1 to 2, 2 there, 0 missing"),
        format!("{id} prediction 1 to 10, 10 there, 0 missing"),
        ", 12 records".to_owned(),
        "damage          0 spans of 0 bytes, 1 unreadable records".to_owned(),
    ] {
        assert!(out.contains(&line), "{line}\n{out}");
    }
    let (exit, out, _) = call(&["export", model.to_str().unwrap()]);
    let exported = lines(&out);
    assert_eq!((exit, exported.len()), (code(0), 9));
    assert_eq!(exported[0]["sequence"], 4);
    assert_eq!(exported[0]["datum"], json!({"n": 5, "s": "text 5"}));
    assert_eq!(exported[0]["schema_sha256"].as_str().unwrap().len(), 64);
    assert_eq!((&exported[6]["kind"], &exported[6]["producer_id"]), (&json!("outcome"), &json!(id)));
    assert_eq!(exported[8]["payload_base64"], "anVuaw==");
    let (_, out, _) = call(&["export", "--all", model.to_str().unwrap()]);
    assert_eq!(lines(&out).len(), 13);
    // All spools of the folder.
    let (exit, out, _) = call(&["export", dir.path().to_str().unwrap()]);
    let exported = lines(&out);
    assert_eq!((exit, exported.len()), (code(0), 10));
    assert_eq!((&exported[9]["spool"], &exported[9]["sequence"]), (&json!("other"), &json!(0)));
    assert!(exported[9]["fault"].as_str().unwrap().contains("schema") && exported[9]["datum_base64"].is_string());
    // Nobody took its lock.
    append(&spool, SchemaKey::NONE, RecordKind::Time, 0);
    spool.close().unwrap();
}

#[test]
fn damage_is_stepped_over_and_said() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).close().unwrap();
    let model = dir.path().join("m");
    let segment = std::fs::read_dir(&model).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "log")).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(6).position(|window| window == b"text 7").unwrap();
    bytes[at] ^= 1;
    // A block that was torn, as by a power cut.
    bytes.extend_from_slice(&[0; 100]);
    std::fs::write(&segment, &bytes).unwrap();
    let before = std::fs::read_dir(&model).unwrap().count();

    let (exit, out, faults) = call(&["inspect", model.to_str().unwrap()]);
    assert_eq!(exit, code(3));
    assert!(out.contains("prediction 1 to 10, 9 there, 1 missing") && out.contains("damage          2 spans"), "{out}");
    assert!(faults.contains("damaged: 2 spans"), "{faults}");
    let (exit, out, _) = call(&["export", model.to_str().unwrap()]);
    let exported: Vec<_> = lines(&out).iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert_eq!((exit, exported), (code(3), vec![4, 5, 7, 8, 9, 10, 11, 12]));

    // A damaged cursor: all counts as not forwarded. A damaged schema: the datum as it is.
    let mut cursor = std::fs::read(model.join("cursor")).unwrap();
    cursor[12] ^= 1;
    std::fs::write(model.join("cursor"), cursor).unwrap();
    let schema = std::fs::read_dir(model.join("schemas")).unwrap().next().unwrap().unwrap().path();
    std::fs::write(schema, "other").unwrap();
    let (exit, out, faults) = call(&["export", model.to_str().unwrap()]);
    assert_eq!((exit, lines(&out).len()), (code(3), 12));
    assert!(lines(&out)[0]["datum_base64"].is_string());
    assert!(faults.contains("1 schemas, and the cursor"), "{faults}");
    assert_eq!(std::fs::read_dir(&model).unwrap().count(), before, "nothing is written");
}

#[test]
fn what_is_no_spool_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let (exit, out, faults) = call(&["inspect", dir.path().to_str().unwrap()]);
    assert_eq!((exit, out.as_str()), (code(1), ""));
    assert!(faults.contains("no spool is there"), "{faults}");
    let (exit, _, faults) = call(&["export", dir.path().join("gone").to_str().unwrap()]);
    assert_eq!(exit, code(1));
    assert!(faults.contains("gone"), "{faults}");
    assert!(Arguments::try_parse_from(["spool", "look"]).is_err());
}
