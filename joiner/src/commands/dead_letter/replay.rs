//! Another try at dead letters.
//!
//! What a sidecar refused is posted to one; what the joiner could not land is appended to its topic, from the record that is
//! still there, else from the letter. The row keeps the time at which it was received, and gets ids that follow from the
//! letter's where it has none of its own: so that a letter that is replayed twice, by whatever ways, gives one row.
//!
//! | a letter | why it is not replayed |
//! |---|---|
//! | without a body | the contract has private fields, and does not keep refused bodies |
//! | of which only the first 64 KiB are there | the rest is nowhere (a record that is still in its topic is read there) |
//! | of a candidate, or of candidates | an item alone lacks what the request had in common; items have no ids to tell copies by |
//! | whose body is no JSON object | there is nothing to tell copies by |
//! | of a record without a value | there is nothing to land |
//! | of a record of a `file:` log | the sidecar alone writes it |

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::DateTime;
use flywheel_schemas::id;
use flywheel_schemas::wire::{self, Kind};
use futures::TryStreamExt as _;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Failed, Replay, Seen, text};
use crate::commands::adopt::beside;
use crate::commands::body::with_members;
use crate::commands::rows;
use crate::commands::sidecar::{BYTES_MAX, ROWS_MAX, Sidecar};
use crate::config::{Config, IngestTime};
use crate::source::{Feed, Record, Source};
use crate::table::{Table, Warehouse};

/// A record that is there is read within that time, or the log is away.
const READ: Duration = Duration::from_secs(30);

/// What is to be done about a letter.
#[derive(Debug, PartialEq)]
enum Way {
    Post(Kind, String),
    /// The record of these coordinates; the body where it is whole.
    Append(Place, Option<Vec<u8>>),
    Not(String),
}

/// Where a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    kind: Kind,
    partition: i32,
    offset: i64,
    received_ms: i64,
}

#[derive(Default)]
struct Counts {
    replayed: usize,
    left: usize,
}

/// Rows of one kind that are posted together, with the ids of their letters.
#[derive(Default)]
struct Batch {
    ids: Vec<String>,
    rows: Vec<String>,
    bytes: usize,
}

/// Ends with exit status 3 where a letter was not replayed.
pub(super) async fn run(
    config: Config,
    warehouse: &Warehouse,
    letters: &Table,
    arguments: Replay,
) -> Result<ExitCode, Failed> {
    let Replay { model, chosen, to } = arguments;
    let sidecars = [Sidecar::new(&to, &model, Kind::Predictions)?, Sidecar::new(&to, &model, Kind::Outcomes)?];
    let mut batches = [Batch::default(), Batch::default()];
    let (mut log, mut seen, mut counts) = (None, Seen::default(), Counts::default());
    let mut stream = Box::pin(rows::stream(letters, chosen.since()).await?);
    while let Some(letter) = stream.try_next().await? {
        if !chosen.holds(&letter, Some(&model)) || !seen.is_new(&letter) {
            continue;
        }
        let id = text(&letter, "dead_letter_id").unwrap_or_default().to_owned();
        match way(&letter, &config.log.prefix, &model) {
            Way::Not(why) => counts.leave(&id, &why),
            Way::Post(kind, row) => {
                let at = usize::from(kind == Kind::Outcomes);
                if batches[at].rows.len() >= ROWS_MAX || batches[at].bytes + row.len() > BYTES_MAX {
                    batches[at].post(&sidecars[at], &mut counts).await?;
                }
                batches[at].bytes += row.len() + 1;
                batches[at].ids.push(id);
                batches[at].rows.push(row);
            }
            Way::Append(place, body) => {
                let log = match &mut log {
                    Some(log) => log,
                    none => none.insert(Log::open(&config, warehouse, &model).await?),
                };
                match log.append(place, body).await? {
                    None => counts.replayed += 1,
                    Some(why) => counts.leave(&id, &why),
                }
            }
        }
    }
    for (batch, sidecar) in batches.iter_mut().zip(&sidecars) {
        batch.post(sidecar, &mut counts).await?;
    }
    if let Some(log) = log {
        log.source.close().await;
    }
    println!("{} letters replayed, {} not", counts.replayed, counts.left);
    Ok(if counts.left == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) })
}

impl Counts {
    fn leave(&mut self, id: &str, why: &str) {
        self.left += 1;
        eprintln!("{id}: {why}");
    }
}

impl Batch {
    async fn post(&mut self, sidecar: &Sidecar, counts: &mut Counts) -> Result<(), Failed> {
        let Batch { ids, rows, .. } = std::mem::take(self);
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        for (id, answer) in ids.iter().zip(sidecar.post(&rows).await?) {
            match answer {
                None => counts.replayed += 1,
                Some(why) => counts.leave(id, &format!("refused again: {why}")),
            }
        }
        Ok(())
    }
}

fn way(letter: &Map<String, Value>, prefix: &str, model: &str) -> Way {
    let not = |why: &str| Way::Not(why.to_owned());
    let kind = match text(letter, "kind") {
        Some("predictions") => Kind::Predictions,
        Some("outcomes") => Kind::Outcomes,
        _ => return not("it says neither `predictions` nor `outcomes`"),
    };
    let received = text(letter, "received_at").and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let Some(received_ms) = received.map(|time| time.timestamp_millis()) else {
        return not("it does not say when it was received");
    };
    let body = text(letter, "body").and_then(bytes);
    let body_bytes = letter.get("body_bytes").and_then(Value::as_u64);
    let is_whole = body.as_ref().is_some_and(|body| body_bytes.is_none_or(|bytes| bytes == body.len() as u64));
    if let Some(topic) = text(letter, "topic") {
        if topic != wire::topic(prefix, model, kind) {
            return Way::Not(format!("it is of {topic}, and log.prefix is `{prefix}`"));
        }
        let number = |name: &str| letter.get(name).and_then(Value::as_i64);
        let partition = number("kafka_partition").and_then(|number| i32::try_from(number).ok());
        return match (partition, number("kafka_offset"), text(letter, "reason")) {
            (_, _, Some("no_value")) => not("its record has no value: there is nothing to land"),
            (Some(partition), Some(offset), _) => {
                let place = Place { kind, partition, offset, received_ms };
                Way::Append(place, body.filter(|_| is_whole))
            }
            _ => not("it does not say where its record was found"),
        };
    }
    let Some(body) = body else {
        return not(
            "its body is not kept, since the contract has private fields (dead_letter_body); the client has it",
        );
    };
    if !is_whole {
        return not("of its body only the first 64 KiB are kept; the client has it");
    }
    let faults = letter.get("faults").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut faults = faults.filter(|fault| fault.starts_with("/items") || fault.starts_with("/shared"));
    let parsed = std::str::from_utf8(&body).ok().and_then(|text| {
        let parsed = serde_json::from_str::<Map<String, Value>>(text).ok()?;
        Some((text, parsed))
    });
    match parsed {
        None => not("its body is no JSON object; a batch is to be sent by its client"),
        Some((_, parsed)) if faults.next().is_some() || parsed.contains_key("items") => {
            not("it is of the candidates of one request, which can only be sent together, by the client")
        }
        Some((text, parsed)) => {
            let id = self::text(letter, "dead_letter_id").and_then(|id| Uuid::try_parse(id).ok());
            match id.ok_or("its id is no UUID").and_then(|id| members(kind, &parsed, &id, received_ms)) {
                // Line ends are but space in JSON, and end a row of a batch.
                Ok(members) => Way::Post(kind, with_members(text, Some(parsed), &members).replace(['\n', '\r'], " ")),
                Err(why) => not(why),
            }
        }
    }
}

/// What a row would have got from the sidecar at its receipt, and got from nobody: a letter's id is a UUIDv7 of that time.
fn members(
    kind: Kind,
    parsed: &Map<String, Value>,
    letter: &Uuid,
    received_ms: i64,
) -> Result<Vec<(&'static str, Value)>, &'static str> {
    let given = |name: &str| parsed.get(name).filter(|value| !value.is_null());
    let mut members = Vec::new();
    match kind {
        Kind::Predictions if given("prediction_id").is_some() => {}
        Kind::Predictions => {
            let event_ms = match given("event_time") {
                None => received_ms,
                Some(time) => instant_ms(time).ok_or("its event_time cannot be read")?,
            };
            let bits = letter.as_bytes()[6..].try_into().unwrap_or_default();
            members.push(("prediction_id", Value::String(id::from_parts(event_ms, bits).to_string())));
        }
        Kind::Outcomes => {
            if given("event_id").is_none() {
                members.push(("event_id", Value::String(letter.to_string())));
            }
            // A statement that was made since must not give way to this one.
            for name in ["event_time", "op_time"].into_iter().filter(|name| given(name).is_none()) {
                members.push((name, Value::from(received_ms.saturating_mul(1000))));
            }
        }
    }
    Ok(members)
}

/// An instant as a sidecar takes it: RFC 3339, or microseconds.
fn instant_ms(value: &Value) -> Option<i64> {
    match value {
        Value::Number(micros) => micros.as_i64().map(|micros| micros.div_euclid(1000)),
        Value::String(text) => {
            DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros().div_euclid(1000))
        }
        _ => None,
    }
}

/// Bytes as [`rows`] writes them.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?, 16).ok())
        .collect()
}

/// The topics of the model, beside the joiners that read them.
struct Log {
    source: Source,
    feed: Feed,
    keeps_times: bool,
}

impl Log {
    async fn open(config: &Config, warehouse: &Warehouse, model: &str) -> Result<Log, Failed> {
        let source = Source::open(&beside(config, "dead-letter")).await?;
        let mut feed = source.feed(model)?;
        for kind in [Kind::Predictions, Kind::Outcomes] {
            let table = warehouse.load(&format!("{model}_{}", kind.name())).await?;
            let progress = table.map(|table| table.recorded()).transpose()?.flatten();
            feed.count_from(kind, &progress.map_or(BTreeMap::new(), |progress| progress.bases));
        }
        Ok(Log { source, feed, keeps_times: config.log.ingest_time == IngestTime::Record })
    }

    /// Appends the record once more; says why where that cannot be.
    async fn append(&mut self, place: Place, body: Option<Vec<u8>>) -> Result<Option<String>, Failed> {
        if !self.source.needs_ticks() {
            return Ok(Some("a file: log is written by the sidecar alone; have it sent once more".to_owned()));
        }
        let mut record = match (self.find(place).await?, body) {
            (Some(record), Some(body)) if record.value.as_deref() != Some(&body) => self.record(place, body),
            (Some(record), _) => record,
            (None, Some(body)) => self.record(place, body),
            (None, None) => {
                return Ok(Some(
                    "of its record only the first 64 KiB are kept, and it is no more in its topic".to_owned(),
                ));
            }
        };
        // A record that lies where it belongs is read without its headers; those that the tables keep are its fields.
        if record.headers.is_empty() {
            let seq = record.producer_seq.map(|seq| seq.to_string());
            let fields = [(wire::PRODUCER_ID, record.producer_id.clone()), (wire::PRODUCER_SEQ, seq)];
            let headers =
                fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Some(Bytes::from(text?)))));
            record.headers = headers.collect();
        }
        self.feed.reroute(&record, place.partition).await?;
        Ok(None)
    }

    fn record(&self, place: Place, body: Vec<u8>) -> Record {
        Record {
            kind: place.kind,
            partition: place.partition,
            offset: place.offset,
            time_ms: place.received_ms,
            time_by_log: !self.keeps_times,
            key: None,
            value: Some(body.into()),
            producer_id: None,
            producer_seq: None,
            tick: false,
            gate: None,
            headers: Vec::new(),
        }
    }

    /// The record of these coordinates, if it is still there.
    async fn find(&mut self, place: Place) -> Result<Option<Record>, Failed> {
        let Place { kind, partition, offset, .. } = place;
        let (low, end) = self.feed.offsets(kind, partition).await?;
        if !(low..end).contains(&offset) {
            return Ok(None);
        }
        self.feed.assign(kind, partition, offset)?;
        let until = Instant::now() + READ;
        let found = loop {
            if let Some(record) = self.feed.poll(1, Duration::from_millis(100)).await?.into_iter().next() {
                break Some(record).filter(|record| record.offset == offset);
            }
            if self.feed.at_end() {
                break None;
            }
            if Instant::now() > until {
                return Err(format!("no record came within {} s; is the log away?", READ.as_secs()).into());
            }
        };
        self.feed.unassign(partition);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LETTER: &str = "019cb0f0-0000-7abc-8def-0123456789ab";
    const RECEIVED: &str = "2026-03-01T10:00:00.123000Z";
    const RECEIVED_MS: i64 = 1_772_359_200_123;

    fn letter(kind: &str, body: &str, more: Value) -> Map<String, Value> {
        let digits: String = body.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut letter = json!({
            "dead_letter_id": LETTER, "model": "m", "kind": kind, "reason": "unknown_field", "received_at": RECEIVED,
            "body": digits, "body_bytes": body.len(), "faults": ["/features/y: unknown_field: none such"],
        });
        letter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        letter.as_object().unwrap().clone()
    }

    fn posted(kind: &str, body: &str) -> Value {
        match way(&letter(kind, body, json!({})), "flywheel", "m") {
            Way::Post(_, row) => serde_json::from_str(&row).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn not(letter: &Map<String, Value>) -> String {
        match way(letter, "flywheel", "m") {
            Way::Not(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_prediction_gets_the_id_that_it_always_gets() {
        let row = posted("predictions", "{\n \"features\": {\"y\": 1e400}\n}".replace("1e400", "0.1").as_str());
        let made = row["prediction_id"].as_str().unwrap();
        assert_eq!(id::time_ms_of(made), Some(RECEIVED_MS));
        assert_eq!(posted("predictions", r#"{"features":{"y":0.1}}"#)["prediction_id"], made);
        assert!(row.get("event_time").is_none(), "the id says it");
        for time in [json!("2026-02-01T01:00:00.0015+01:00"), json!(1_769_904_000_001_500_i64)] {
            let row = posted("predictions", &json!({"event_time": time}).to_string());
            assert_eq!(id::time_ms_of(row["prediction_id"].as_str().unwrap()), Some(1_769_904_000_001));
            assert_eq!(row["event_time"], time);
        }
        let brought = posted("predictions", r#"{"prediction_id":"p"}"#);
        assert_eq!(brought, json!({"prediction_id": "p"}));
        assert!(not(&letter("predictions", r#"{"event_time":"soon"}"#, json!({}))).contains("event_time"));
    }

    #[test]
    fn a_statement_keeps_the_time_of_its_receipt() {
        let micros = RECEIVED_MS * 1000;
        assert_eq!(
            posted("outcomes", r#"{"prediction_id":"p","event_time":null}"#),
            json!({"prediction_id": "p", "event_id": LETTER, "event_time": micros, "op_time": micros})
        );
        let whole = json!({"prediction_id": "p", "event_id": "e", "event_time": 1, "op_time": 2});
        assert_eq!(posted("outcomes", &whole.to_string()), whole);
    }

    #[test]
    fn what_cannot_be_replayed_says_why() {
        let of = |more: Value| not(&letter("predictions", "{}", more));
        assert!(of(json!({"body": null})).contains("private fields"));
        assert!(of(json!({"body_bytes": 70_000})).contains("64 KiB"));
        assert!(of(json!({"faults": ["/items/3/features/y: unknown_field: none such"]})).contains("candidates"));
        assert!(not(&letter("predictions", r#"{"shared":{},"items":[{}]}"#, json!({}))).contains("candidates"));
        assert!(not(&letter("predictions", "{}\n{}", json!({}))).contains("no JSON object"));
        assert!(of(json!({"topic": "other.m.predictions"})).contains("other.m.predictions"));
        let topic = json!("flywheel.m.predictions");
        assert!(of(json!({"topic": topic, "reason": "no_value"})).contains("no value"));
        let place = Place { kind: Kind::Predictions, partition: 2, offset: 7, received_ms: RECEIVED_MS };
        let of = |bytes: u64| {
            let more = json!({"topic": topic, "kafka_partition": 2, "kafka_offset": 7, "body_bytes": bytes});
            way(&letter("predictions", "{}", more), "flywheel", "m")
        };
        assert_eq!(of(2), Way::Append(place, Some(b"{}".to_vec())));
        assert_eq!(of(70_000), Way::Append(place, None));
    }
}
