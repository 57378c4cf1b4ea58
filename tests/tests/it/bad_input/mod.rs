//! Bad input on real servers, over HTTP and on the topic itself: each piece gets the documented answer, is counted by
//! reason and found in `dead_letter`, and the good ones between them are all in their tables, once, with their values.

mod checks;
mod hold;
pub mod messages;
mod requests;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use apache_avro::types::Value as Avro;
use flywheel_schemas::contract::Contract;
use flywheel_schemas::wire::{self, Kind};
use flywheel_schemas::{id, partition};
use flywheel_tests::readers::{Duckdb, Rows, duckdb_sql};
use flywheel_tests::servers::{Registry as RegistryServer, shared, skipped};
use flywheel_tests::system::{BOUND, JSON, NDJSON, Plan, System, until};
use serde_json::{Value, json};

use crate::DEMONSTRATION;
use messages::{Foreign, datum, framed, id_at_home};

const MODEL: &str = "bad_input";
const PREFIX: &str = "bad_input";
const PARTITIONS: i32 = 3;
/// Rows of a batch.
const BATCH_ROWS: usize = 5;
/// Of a body so much is kept.
const BODY_KEPT: usize = 64 << 10;

const CONTRACT: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: bad_input
version: 1
features:
  count:  {type: int, required: true}
  ratio:  {type: double}
  share:  {type: double, expect: {min: 0, max: 1}}
  weight: {type: float}
  name:   {type: string}
prediction:
  score: {type: double, required: true}
labels:
  ok: {type: boolean, window: 1h, lateness: 15m, aggregate: any, default: false}
";

/// The same with another feature.
fn second_version() -> Contract {
    let text =
        CONTRACT.replace("version: 1", "version: 2").replace("prediction:", "  extra:  {type: long}\nprediction:");
    Contract::parse(&text).unwrap()
}

/// A row of `dead_letter` that must come: kind, reason, beginning of the body, its length, topic, partition, offset.
type Letter = (String, String, String, usize, Option<(String, i32, i64)>);

/// What was sent, and what must be in the tables for it.
struct Run {
    system: System,
    foreign: Foreign,
    duckdb: Duckdb,
    /// By prediction id: count, ratio, weight, name, contract version.
    predictions: BTreeMap<String, Value>,
    /// Prediction id and event id.
    outcomes: BTreeMap<String, String>,
    letters: Vec<Letter>,
    /// Neighbours so far.
    sent: i32,
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn topic(kind: Kind) -> String {
    wire::topic(PREFIX, MODEL, kind)
}

impl Run {
    /// A good prediction in the partition given, and an outcome of it, over HTTP.
    async fn neighbour_in(&mut self, home: i32) -> String {
        self.sent += 1;
        let (number, now_ms) = (self.sent, now_ms());
        let id = id_at_home(now_ms, home, PARTITIONS).to_string();
        // Where a number may be none, some are.
        let (ratio, shown, weight, weight_shown) = match number % 4 {
            0 => ("NaN".to_owned(), "nan".to_owned(), "-Infinity", "-inf"),
            1 => ("-Infinity".to_owned(), "-inf".to_owned(), "NaN", "nan"),
            2 => ("Infinity".to_owned(), "inf".to_owned(), "0.25", "0.25"),
            _ => (format!("{number}.5"), format!("{number}.5"), "Infinity", "inf"),
        };
        let features = format!(r#""count":{number},"ratio":{ratio},"weight":{weight},"name":"n\u00b0{number} ✈""#);
        let body = requests::prediction(&format!(r#""prediction_id":"{id}","features":{{{features}}}"#));
        let answer = self.system.post(Kind::Predictions, JSON, body).await;
        assert_eq!((answer.status, &answer.body), (202, &json!({"prediction_id": id})), "{answer:?}");
        let row = json!([number, shown, weight_shown, format!("n°{number} ✈"), 1]);
        assert!(self.predictions.insert(id.clone(), row).is_none());

        let event_id = id::mint(now_ms).to_string();
        let body = format!(r#"{{"prediction_id":"{id}","labels":{{"ok":true}},"event_id":"{event_id}"}}"#);
        let answer = self.system.post(Kind::Outcomes, JSON, body).await;
        assert_eq!((answer.status, &answer.body), (202, &json!({"event_id": event_id})), "{answer:?}");
        self.outcomes.insert(id.clone(), event_id);
        id
    }

    async fn neighbour(&mut self) {
        self.neighbour_in(self.sent % PARTITIONS).await;
    }

    fn expect_letter(&mut self, kind: Kind, reason: &str, body: &[u8], place: Option<(i32, i64)>) {
        let place = place.map(|(partition, offset)| (topic(kind), partition, offset));
        let kept = hex(&body[..body.len().min(BODY_KEPT)]);
        self.letters.push((kind.name().to_owned(), reason.to_owned(), kept, body.len(), place));
    }

    /// Puts a value on a topic that becomes a dead letter there.
    async fn put_bad(&mut self, kind: Kind, home: i32, key: Option<&str>, value: Option<&[u8]>, reason: &str) {
        let offset = self.foreign.put(&topic(kind), home, key, value).await;
        self.expect_letter(kind, reason, value.unwrap_or_default(), Some((home, offset)));
    }

    /// What the table of predictions has of those that were sent, by id.
    fn landed(&self) -> Vec<(String, Value)> {
        let sql = "SELECT prediction_id, count, CAST(ratio AS VARCHAR), CAST(weight AS VARCHAR), name, contract_version
            FROM bad_input_predictions ORDER BY prediction_id";
        let rows = duckdb_sql(&self.duckdb, sql).unwrap();
        rows.into_iter().map(|row| (row[0].as_str().unwrap().to_owned(), Value::Array(row[1..].to_vec()))).collect()
    }

    fn ask(&self, sql: &str) -> Rows {
        duckdb_sql(&self.duckdb, sql).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_answered_counted_and_kept_and_its_neighbours_are_unharmed() {
    if skipped("bad_input_is_answered_counted_and_kept_and_its_neighbours_are_unharmed") {
        return;
    }
    let set = shared();
    let dir = tempfile::tempdir().unwrap();
    // A registry of its own: only where nobody else registers is the next id known before it is given.
    let registry = RegistryServer::start(dir.path()).unwrap();
    let contract = Contract::parse(CONTRACT).unwrap();
    let plan = Plan {
        program: DEMONSTRATION,
        dir: dir.path(),
        set,
        registry: registry.address(),
        contract: &contract,
        yaml: CONTRACT,
        prefix: PREFIX,
        partitions: PARTITIONS,
        batch_rows: BATCH_ROWS,
    };
    let system = System::start(&plan).await.unwrap();
    let mut run = Run {
        system,
        foreign: Foreign::new(set.kafka.address()),
        duckdb: set.python(PREFIX).duckdb().unwrap(),
        predictions: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        letters: Vec::new(),
        sent: 0,
    };
    send_bad_requests(&mut run).await;
    send_bad_batches(&mut run).await;
    send_half_a_request(&mut run).await;
    send_an_expectation(&mut run).await;
    let refused_by_sidecar = run.letters.len();
    put_bad_messages(&mut run, &contract).await;
    let by_joiner = run.letters[refused_by_sidecar..].to_vec();
    checks::check_joiner_counts(&run, &by_joiner).await;
    let held = hold::hold_and_release(&mut run, registry.address()).await;
    run.predictions.extend(held);

    // All of them, once, with their values, and nothing else.
    until("the predictions", async || run.landed().len() >= run.predictions.len()).await;
    assert_eq!(run.landed(), run.predictions.clone().into_iter().collect::<Vec<_>>());
    let outcomes = "SELECT prediction_id, event_id, label_ok FROM bad_input_outcomes ORDER BY prediction_id";
    until("the outcomes", async || run.ask(outcomes).len() >= run.outcomes.len()).await;
    let expected: Rows = run.outcomes.iter().map(|(id, event)| vec![json!(id), json!(event), json!(true)]).collect();
    assert_eq!(run.ask(outcomes), expected);
    let by_sidecar = run.letters[..refused_by_sidecar].to_vec();
    checks::check_sidecar_counts(&mut run, &by_sidecar).await;
    checks::check_letters(&run).await;
    run.system.joiner.stop().await;
}

async fn send_bad_requests(run: &mut Run) {
    for request in requests::refused(now_ms()) {
        run.neighbour().await;
        let answer = run.system.post(request.kind, JSON, request.body.clone()).await;
        requests::check(&answer, request.status, &request.faults);
        run.expect_letter(request.kind, request.faults[0].1, &request.body, None);
    }
    run.neighbour().await;
}

/// A line that is cut short is that line's fault; a batch that is too long is refused whole.
async fn send_bad_batches(run: &mut Run) {
    let line = |id: &str, count: i32| {
        requests::prediction(&format!(r#""prediction_id":"{id}","features":{{"count":{count}}}"#))
    };
    let ids: Vec<String> = (0..4).map(|_| id::mint(now_ms()).to_string()).collect();
    let unknown = requests::prediction(r#""features":{"count":1,"colour":"red"}"#);
    let cut = &line(&ids[2], 3)[..60];
    let batch = [&line(&ids[0], 1), unknown.as_str(), "", &line(&ids[1], 2), cut].join("\n");
    let answer = run.system.post(Kind::Predictions, NDJSON, batch).await;
    assert_eq!((answer.status, answer.media_type.as_str()), (207, JSON), "{answer:?}");
    let results = answer.body["results"].as_array().unwrap();
    let accepted = |id: &str| json!({"status": 202, "prediction_id": id});
    assert_eq!((results.len(), &results[0], &results[2]), (4, &accepted(&ids[0]), &accepted(&ids[1])));
    for (place, fault) in [(1, ("/features/colour", "unknown_field")), (3, ("", "invalid_json"))] {
        assert_eq!(results[place]["status"], 422);
        requests::check_faults(&results[place]["errors"], &[fault]);
    }
    for (id, count) in [(&ids[0], 1), (&ids[1], 2)] {
        run.predictions.insert(id.clone(), json!([count, null, null, null, 1]));
    }
    run.expect_letter(Kind::Predictions, "unknown_field", unknown.as_bytes(), None);
    run.expect_letter(Kind::Predictions, "invalid_json", cut.as_bytes(), None);

    let long = vec![line(&ids[3], 1); BATCH_ROWS + 1].join("\n");
    let answer = run.system.post(Kind::Predictions, NDJSON, long.clone()).await;
    requests::check(&answer, 413, &[]);
    run.expect_letter(Kind::Predictions, "too_large", long.as_bytes(), None);
    run.neighbour().await;
}

/// A batch whose connection ends in its middle: none of its lines is accepted, whole as some are.
async fn send_half_a_request(run: &mut Run) {
    let body = requests::prediction(r#""features":{"count":1}"#) + "\n";
    let head = format!(
        "POST /v1/models/{MODEL}/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NDJSON}\r\nContent-Length: {}\r\n\r\n",
        2 * body.len()
    );
    let mut stream = std::net::TcpStream::connect(run.system.address()).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    run.neighbour().await;
}

/// A client that asks before it sends a body, as curl does, is refused before it has sent one.
async fn send_an_expectation(run: &mut Run) {
    const BYTES: usize = 10_000_000;
    let head = format!(
        "POST /v1/models/{MODEL}/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n\
         Content-Length: {BYTES}\r\nExpect: 100-continue\r\n\r\n"
    );
    let mut stream = std::net::TcpStream::connect(run.system.address()).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    run.letters.push((Kind::Predictions.name().to_owned(), "too_large".to_owned(), String::new(), BYTES, None));
    run.neighbour().await;
}

async fn put_bad_messages(run: &mut Run, contract: &Contract) {
    let schema_id = |kind: Kind| {
        let name = wire::subject(&topic(kind));
        run.system.registration.subjects.iter().find(|subject| subject.name == name).unwrap().id
    };
    let (predictions, outcomes) = (schema_id(Kind::Predictions), schema_id(Kind::Outcomes));
    let now_ms = now_ms();
    let sound = |id: &str, number: i32| datum(contract, id, now_ms * 1000, &[("count", Avro::Int(number))]);
    let id_in = |home: i32| id_at_home(now_ms, home, PARTITIONS).to_string();
    let bad = |home: i32, value: Vec<u8>, reason: &'static str| (Kind::Predictions, home, value, reason);

    let (one, two, three) = (id_in(0), id_in(1), id_in(2));
    let whole = sound(&one, 1);
    let of_another_time = datum(contract, &two, (now_ms - 1) * 1000, &[("count", Avro::Int(1))]);
    let version_4 = std::iter::repeat_with(uuid::Uuid::new_v4).map(|id| id.to_string());
    let version_4 = version_4.into_iter().find(|id| partition::of(id.as_bytes(), PARTITIONS) == 2).unwrap();
    let ahead_ms = now_ms + 2 * 3_600_000;
    let ahead = id_at_home(ahead_ms, 0, PARTITIONS).to_string();
    let messages = [
        bad(0, b"garbage, not framed".to_vec(), "not_framed"),
        bad(1, vec![0, 0, 0], "not_framed"),
        bad(2, framed(predictions, &whole[..whole.len() / 2]), "undecodable"),
        bad(0, framed(predictions, &[&whole[..], b"more"].concat()), "undecodable"),
        bad(1, framed(predictions, b""), "undecodable"),
        bad(2, framed(predictions, &[0xff; 40]), "undecodable"),
        // The schema of outcomes on the topic of predictions.
        bad(0, framed(outcomes, &whole), "unusable_schema"),
        bad(1, framed(predictions, &of_another_time), "id_time_mismatch"),
        bad(2, framed(predictions, &sound(&version_4, 1)), "invalid_id"),
        bad(0, framed(predictions, &datum(contract, &ahead, ahead_ms * 1000, &[])), "event_time_ahead"),
        (Kind::Outcomes, 1, b"{\"json\": true}".to_vec(), "not_framed"),
        (Kind::Outcomes, 2, framed(outcomes, &[0x80; 20]), "undecodable"),
    ];
    for (kind, home, value, reason) in messages {
        run.put_bad(kind, home, Some("key"), Some(&value), reason).await;
        run.neighbour_in(home).await;
    }
    run.put_bad(Kind::Predictions, 1, Some("key"), None, "no_value").await;
    run.put_bad(Kind::Predictions, 2, None, Some(b""), "not_framed").await;

    // A sound one of another producer lands; one that it put into another's partition lands in its own, once.
    for (id, home, number) in [(&three, 2, 1001), (&one, 1, 1002)] {
        let value = framed(predictions, &sound(id, number));
        run.foreign.put(&topic(Kind::Predictions), home, Some(id), Some(&value)).await;
        run.predictions.insert(id.clone(), json!([number, null, null, null, 1]));
    }
    // On the topics of all models too: these are counted, there being no place for them.
    for topic in [wire::dead_letter_topic(PREFIX), wire::ledger_topic(PREFIX)] {
        run.foreign.put(&topic, 0, None, Some(b"garbage")).await;
        // A sound record of another schema.
        run.foreign.put(&topic, 0, None, Some(&framed(predictions, &sound(&one, 1003)))).await;
    }
    run.neighbour().await;
}
