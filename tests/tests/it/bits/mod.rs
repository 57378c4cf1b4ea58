//! No number changes on its way: random values of every type, spelt in every way that JSON has, go through HTTP, sidecar,
//! Kafka, joiner and Iceberg, and two independent readers find the same bits.
//!
//! The seed is printed and taken from `FLYWHEEL_TEST_SEED` where that is set.

mod spelling;
mod values;

use std::collections::BTreeMap;

use flywheel_schemas::contract::Contract;
use flywheel_schemas::id;
use flywheel_schemas::wire::Kind;
use flywheel_tests::readers::{Bits, bits};
use flywheel_tests::servers::{shared, skipped};
use flywheel_tests::system::{JSON, NDJSON, Plan, System, until};
use serde_json::{Map, Value, json};

use crate::DEMONSTRATION;
use values::Random;

const PREFIX: &str = "bits";
const PREDICTIONS: usize = 3000;
const OUTCOMES: usize = 1500;
/// Some go alone, the others in batches of this many.
const BATCH: usize = 25;

/// Every type of a contract; each is a feature, and each but lists a list.
const TYPES: [&str; 17] = [
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "decimal(1,0)",
    "decimal(9,2)",
    "decimal(18,18)",
    "decimal(19,3)",
    "decimal(38,0)",
    "decimal(38,17)",
    "decimal(38,38)",
    "string",
    "bytes",
    "date",
    "timestamp",
    "uuid",
];

/// A declared field: its key, its column, its type.
#[derive(Clone)]
struct Field {
    key: String,
    column: String,
    ty: String,
}

fn field(key: &str, column: &str, ty: &str) -> Field {
    Field { key: key.to_owned(), column: column.to_owned(), ty: ty.to_owned() }
}

/// The blocks of a prediction, and the labels.
struct Declared {
    blocks: Vec<(&'static str, Vec<Field>)>,
    labels: Vec<Field>,
}

impl Declared {
    fn new() -> Declared {
        let each = |form: fn(&str) -> String, key: &str, column: fn(&str) -> String| -> Vec<Field> {
            let fields = TYPES.iter().enumerate().map(|(place, ty)| {
                let key = format!("{key}{place}");
                field(&key, &column(&key), &form(ty))
            });
            fields.collect()
        };
        let plain = |key: &str| key.to_owned();
        let mut features = each(str::to_owned, "f", plain);
        features.extend(each(|ty| format!("list<{ty}>"), "l", plain));
        let blocks = vec![
            ("entity", vec![field("e0", "e0", "string"), field("e1", "e1", "long")]),
            ("features", features),
            ("prediction", each(str::to_owned, "p", |key| format!("prediction_{key}"))),
            ("decision", vec![field("d0", "d0", "float"), field("d1", "d1", "decimal(20,10)")]),
            ("context", vec![field("c0", "c0", "double"), field("c1", "c1", "timestamp")]),
        ];
        Declared { blocks, labels: each(str::to_owned, "o", |key| format!("label_{key}")) }
    }

    fn contract(&self) -> String {
        let mut text = "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: bits\nversion: 1\n".to_owned();
        for (block, fields) in &self.blocks {
            text += &format!("{block}:\n");
            for Field { key, ty, .. } in fields {
                text += &format!("  {key}: {{type: \"{ty}\"}}\n");
            }
        }
        text += "labels:\n";
        for Field { key, ty, .. } in &self.labels {
            text += &format!("  {key}: {{type: \"{ty}\", window: 1h, lateness: 15m, aggregate: last}}\n");
        }
        text
    }
}

/// An object of these fields, some absent and some null, and what the columns must hold.
fn block(random: &mut Random, fields: &[Field], row: &mut Map<String, Value>, with_nulls: bool) -> String {
    let mut members = Vec::new();
    for Field { key, column, ty } in fields {
        match random.below(12) {
            0 => drop(row.insert(column.clone(), Value::Null)),
            1 if with_nulls => {
                row.insert(column.clone(), Value::Null);
                members.push((key.clone(), "null".to_owned()));
            }
            _ => {
                let (text, cell) = values::any(random, ty);
                row.insert(column.clone(), cell);
                members.push((key.clone(), text));
            }
        }
    }
    spelling::object(random, members)
}

/// The body of a prediction, and its row.
fn prediction(random: &mut Random, declared: &Declared, now_ms: i64) -> (String, Map<String, Value>) {
    const DAY_MS: i64 = 86_400_000;
    let mut row = Map::new();
    let event_ms = now_ms - random.within(0, 6 * DAY_MS);
    let id = id::mint(event_ms).to_string();
    row.insert("prediction_id".to_owned(), json!(values::hex(id.as_bytes())));
    row.insert("event_time".to_owned(), json!((event_ms * 1000).to_string()));
    let mut members = vec![
        ("prediction_id".to_owned(), spelling::string(random, &id)),
        ("model_version".to_owned(), "\"1\"".to_owned()),
    ];
    if random.once_in(2) {
        let latency = random.of(&[0, 1, i64::MAX, i64::MAX - 1, (1 << 53) + 1]);
        row.insert("latency_us".to_owned(), json!(latency.to_string()));
        members.push(("latency_us".to_owned(), latency.to_string()));
    }
    let status: String = values::string(random).chars().take(200).collect();
    members.push(("status".to_owned(), spelling::string(random, &status)));
    row.insert("status".to_owned(), json!(values::hex(status.as_bytes())));
    for (name, fields) in &declared.blocks {
        let text = block(random, fields, &mut row, true);
        members.push(((*name).to_owned(), text));
    }
    (spelling::object(random, members), row)
}

/// The body of an outcome, and its row.
fn outcome(random: &mut Random, declared: &Declared, now_ms: i64) -> (String, Map<String, Value>) {
    let mut row = Map::new();
    let (id, event_id) = (id::mint(now_ms).to_string(), id::mint(now_ms).to_string());
    row.insert("prediction_id".to_owned(), json!(values::hex(id.as_bytes())));
    row.insert("event_id".to_owned(), json!(values::hex(event_id.as_bytes())));
    let (revision, revision_cell) = values::any(random, "long");
    row.insert("revision".to_owned(), revision_cell);
    let mut labels = block(random, &declared.labels, &mut row, false);
    while row.iter().all(|(column, cell)| !column.starts_with("label_") || cell.is_null()) {
        labels = block(random, &declared.labels, &mut row, false);
    }
    let members = [
        ("prediction_id", spelling::string(random, &id)),
        ("event_id", spelling::string(random, &event_id)),
        ("revision", revision),
        ("labels", labels),
    ];
    let members = members.map(|(key, text)| (key.to_owned(), text)).to_vec();
    (spelling::object(random, members), row)
}

/// Sends rows, alone and in batches, and keeps what must come of them by their id.
async fn send(
    system: &System,
    random: &mut Random,
    kind: Kind,
    rows: Vec<(String, Map<String, Value>)>,
) -> BTreeMap<String, Map<String, Value>> {
    let mut rest = rows.as_slice();
    while !rest.is_empty() {
        let count = if random.once_in(4) { 1 } else { BATCH.min(rest.len()) };
        let (now, later) = rest.split_at(count);
        rest = later;
        // A line break is white space in JSON but ends a row here.
        let lines: Vec<String> = now.iter().map(|(body, _)| body.replace(['\n', '\r'], " ")).collect();
        let (media_type, body) = if count == 1 { (JSON, now[0].0.clone()) } else { (NDJSON, lines.join("\n")) };
        let answer = system.post(kind, media_type, body.clone()).await;
        assert_eq!(answer.status, 202, "{answer:?}\n{body}");
    }
    let id = |row: &Map<String, Value>| row["prediction_id"].as_str().unwrap().to_owned();
    rows.into_iter().map(|(_, row)| (id(&row), row)).collect()
}

/// The table as an engine reads it is what was sent, in every bit.
fn check(reader: &Bits, engine: &str, table: &str, sent: &BTreeMap<String, Map<String, Value>>) {
    let found = bits(reader, engine, table).unwrap();
    assert_eq!(found.len(), sent.len(), "{engine}: {table}");
    let mut cells = 0;
    for row in &found {
        let expected = &sent[row["prediction_id"].as_str().unwrap()];
        for (column, cell) in expected {
            assert_eq!(row.get(column), Some(cell), "{engine}: {table}, {column} of {}", row["prediction_id"]);
            cells += 1;
        }
    }
    eprintln!("{engine}: {cells} cells of {table} have the bits that were sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_changes_on_its_way() {
    if skipped("no_number_changes_on_its_way") {
        return;
    }
    let set = shared();
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(crate::chaos::seed());
    let declared = Declared::new();
    let yaml = declared.contract();
    let contract = Contract::parse(&yaml).unwrap();
    let plan = Plan {
        program: DEMONSTRATION,
        dir: dir.path(),
        set,
        registry: set.registry.address(),
        contract: &contract,
        yaml: &yaml,
        prefix: PREFIX,
        partitions: 3,
        batch_rows: BATCH,
    };
    let mut system = System::start(&plan).await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_ms = i64::try_from(now.as_millis()).unwrap();
    let rows = (0..PREDICTIONS).map(|_| prediction(&mut random, &declared, now_ms)).collect();
    let predictions = send(&system, &mut random, Kind::Predictions, rows).await;
    let rows = (0..OUTCOMES).map(|_| outcome(&mut random, &declared, now_ms)).collect();
    let outcomes = send(&system, &mut random, Kind::Outcomes, rows).await;
    for (table, rows) in [("bits_predictions", PREDICTIONS), ("bits_outcomes", OUTCOMES)] {
        until(table, async || {
            let metrics = system.joiner.metrics().await;
            metrics.sum("flywheel_joiner_committed_rows_total", &[("table", table)]) >= rows as u64
        })
        .await;
    }
    let reader = set.python(PREFIX).bits().unwrap();
    for engine in ["pyiceberg", "duckdb"] {
        check(&reader, engine, "bits_predictions", &predictions);
        check(&reader, engine, "bits_outcomes", &outcomes);
    }
    system.sidecar.stop().await;
    system.joiner.stop().await;
}
