use std::collections::BTreeMap;

use apache_avro::Schema as AvroSchema;
use apache_avro::reader::datum::GenericDatumReader;
use arrow::array::{Array, AsArray};
use arrow::datatypes::SchemaRef;
use flywheel_schemas::avro::{ledger_schema, outcome_schema, prediction_schema};
use flywheel_schemas::contract::{Contract, Scalar};
use flywheel_schemas::table;
use flywheel_schemas::types::Type;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::label::{LabelState, Status};
use oracle::{Given, Record};

pub(crate) mod oracle;

const ORIGIN: Origin = Origin {
    ingest_time_ms: 1_357_034_400_123,
    partition: 3,
    offset: 1 << 40,
    producer_id: Some("p"),
    producer_seq: Some(7),
};

/// A schema, its layout and its decoder.
struct Writer {
    text: String,
    layout: Layout,
    decoder: Decoder,
}

impl Writer {
    fn new(text: String, kind: Kind) -> Writer {
        let layout = Layout::parse(&text).unwrap();
        let decoder = Decoder::compile(&layout, kind).unwrap();
        Writer { text, layout, decoder }
    }

    fn encode(&self, record: &Record) -> Vec<u8> {
        oracle::encode(&self.text, &self.layout, record)
    }
}

/// What stands in a row beside the record's own values.
fn of_origin() -> BTreeMap<String, String> {
    let cells = [
        ("ingest_time", Scalar::Timestamp(1_357_034_400_123_000)),
        ("kafka_partition", Scalar::Int(3)),
        ("kafka_offset", Scalar::Long(1 << 40)),
        ("producer_id", Scalar::String("p".to_owned())),
        ("producer_seq", Scalar::Long(7)),
    ];
    cells.into_iter().map(|(name, value)| (name.to_owned(), format!("{value:?}"))).collect()
}

fn expected(record: &Record) -> BTreeMap<String, String> {
    let mut cells = oracle::expected(record);
    cells.extend(of_origin());
    cells
}

fn text_of(record: &Record, path: &str) -> Option<String> {
    match record.get(path) {
        Some(Given::Scalar(Scalar::String(text))) => Some(text.clone()),
        _ => None,
    }
}

/// The same schema as another producer might have written it: fields in another order, unions the other way round,
/// plain fields instead of nullable ones, and fields left out. `seed` decides.
fn foreign(text: &str, seed: u64) -> String {
    const KEPT: [&str; 3] = ["prediction_id", "event_time", "event_id"];
    fn disguise(fields: &mut Vec<Json>, draw: &mut impl FnMut(usize) -> usize) {
        fields.retain(|field| KEPT.contains(&field["name"].as_str().unwrap()) || draw(5) > 0);
        for n in (1..fields.len()).rev() {
            fields.swap(n, draw(n + 1));
        }
        for field in fields {
            field.as_object_mut().unwrap().remove("default");
            let Some([_, ty]) = field["type"].as_array().map(Vec::as_slice) else { continue };
            let mut ty = ty.clone();
            if let Some(fields) = ty.get_mut("fields").and_then(Json::as_array_mut) {
                disguise(fields, draw);
            }
            field["type"] = match draw(3) {
                0 => ty,
                1 => json!([ty, "null"]),
                _ => json!(["null", ty]),
            };
        }
    }
    let mut bits = seed;
    let mut draw = |below: usize| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(bits >> 33).unwrap() % below
    };
    let mut schema: Json = serde_json::from_str(text).unwrap();
    disguise(schema["fields"].as_array_mut().unwrap(), &mut draw);
    schema.to_string()
}

/// A writer of a random contract and records that it might write, with the table.
fn written(kind: Kind) -> impl Strategy<Value = (SchemaRef, String, Vec<Record>)> {
    (oracle::contracts(), proptest::option::of(any::<u64>())).prop_flat_map(move |(contract, seed)| {
        let (text, schema) = texts(&contract, kind);
        let text = seed.map_or(text.clone(), |seed| foreign(&text, seed));
        let layout = Layout::parse(&text).unwrap();
        (Just(schema), Just(text), proptest::collection::vec(oracle::records(&layout), 1..5))
    })
}

fn texts(contract: &Contract, kind: Kind) -> (String, SchemaRef) {
    match kind {
        Kind::Predictions => (prediction_schema(contract), oracle::predictions_schema(contract)),
        Kind::Outcomes => (outcome_schema(contract), oracle::outcomes_schema(contract)),
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Predictions, Kind::Outcomes])
}

fn agrees((kind, (schema, text, records)): (Kind, (SchemaRef, String, Vec<Record>))) -> Result<(), TestCaseError> {
    let writer = Writer::new(text, kind);
    let mut rows = Rows::new(schema.clone());
    rows.fits(&writer.decoder).unwrap();
    for record in &records {
        let datum = writer.encode(record);
        let keys = writer.decoder.check(&datum).unwrap();
        prop_assert_eq!(Some(keys.prediction_id.to_owned()), text_of(record, "prediction_id"));
        prop_assert_eq!(keys.event_id.map(str::to_owned), text_of(record, "event_id"));
        prop_assert_eq!(keys.exposure.map(str::to_owned), text_of(record, "exposure"));
        prop_assert_eq!(Some(format!("Timestamp({})", keys.event_time_us)), record.get("event_time").map(Given::bits));
        prop_assert_eq!(
            keys.contract_version.map(|version| format!("Int({version})")),
            record.get("contract_version").map(Given::bits)
        );
        rows.push(&writer.decoder, &datum, &ORIGIN);
    }
    prop_assert_eq!(rows.len(), records.len());
    let batch = rows.finish().unwrap();
    prop_assert_eq!(batch.schema(), schema);
    prop_assert!(rows.is_empty() && rows.bytes() == 0);
    for (row, record) in records.iter().enumerate() {
        prop_assert_eq!(oracle::cells(&batch, row), expected(record));
    }
    Ok(())
}

fn both(kind: Kind) -> impl Strategy<Value = (Kind, (SchemaRef, String, Vec<Record>))> {
    (Just(kind), written(kind))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_hold_what_apache_avro_wrote(written in kinds().prop_flat_map(both)) {
        agrees(written)?;
    }

    #[test]
    fn a_statement_is_the_same_of_the_datum_and_of_the_row(
        (schema, text, records) in written(Kind::Outcomes)
    ) {
        let writer = Writer::new(text, Kind::Outcomes);
        let mut rows = Rows::new(schema);
        let mut of_datums = Vec::new();
        for record in &records {
            let datum = writer.encode(record);
            let keys = writer.decoder.check(&datum).unwrap();
            of_datums.push((keys.prediction_id.to_owned(), writer.decoder.statement(&datum, &ORIGIN).unwrap()));
            rows.push(&writer.decoder, &datum, &ORIGIN);
        }
        let of_rows = statements(&rows.finish().unwrap()).unwrap();
        let bits = |statements: &[(String, crate::label::Statement)]| -> Vec<String> {
            statements.iter().map(|(id, statement)| {
                let mut statement = statement.clone();
                let values: Vec<_> = std::mem::take(&mut statement.values)
                    .iter().map(|(name, value)| (name.clone(), oracle::scalar_bits(value))).collect();
                format!("{id} {statement:?} {values:?}")
            }).collect()
        };
        prop_assert_eq!(bits(&of_datums), bits(&of_rows));
        for (record, (_, statement)) in records.iter().zip(&of_datums) {
            let values: BTreeMap<_, _> = statement.values.iter()
                .map(|(name, value)| (format!("label.{name}"), oracle::scalar_bits(value))).collect();
            let given: BTreeMap<_, _> = record.iter().filter(|(path, _)| path.starts_with("label."))
                .map(|(path, given)| (path.clone(), given.bits())).collect();
            prop_assert_eq!(values, given);
            prop_assert_eq!(Some(statement.event_id.clone()), text_of(record, "event_id"));
            prop_assert_eq!(&statement.outcome_id, &text_of(record, "outcome_id").unwrap_or_default());
            let op = text_of(record, "op");
            prop_assert_eq!(statement.op.name(), op.as_deref().unwrap_or("assert"));
        }
    }

    #[test]
    fn good_messages_become_rows_whatever_stands_between_them(
        (schema, text, records) in written(Kind::Predictions),
        spoilt in proptest::collection::vec((0..4_usize, any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let writer = Writer::new(text, Kind::Predictions);
        let mut messages: Vec<(Vec<u8>, Option<&Record>)> =
            records.iter().map(|record| (writer.encode(record), Some(record))).collect();
        for (how, place, byte) in spoilt {
            let mut datum = writer.encode(&records[place.index(records.len())]);
            let at = place.index(datum.len());
            match how {
                0 => datum.truncate(at),
                1 => datum.push(byte),
                2 => datum.insert(0, 0xff),
                _ => datum.splice(..at, [byte]).for_each(drop),
            }
            messages.insert(place.index(messages.len() + 1), (datum, None));
        }
        let mut rows = Rows::new(schema);
        let mut good = Vec::new();
        for (datum, record) in &messages {
            match (writer.decoder.check(datum), record) {
                (Ok(_), Some(record)) => good.push(*record),
                // Some spoilt messages are a message again; those are for the test of corruption.
                (Ok(_), None) => continue,
                (Err(_), None) => continue,
                (Err(error), Some(_)) => panic!("{error}"),
            }
            rows.push(&writer.decoder, datum, &ORIGIN);
        }
        let batch = rows.finish().unwrap();
        prop_assert_eq!(batch.num_rows(), good.len());
        for (row, record) in good.into_iter().enumerate() {
            prop_assert_eq!(oracle::cells(&batch, row), expected(record));
        }
    }

    #[test]
    fn random_bytes_do_no_harm(
        (schema, text, _) in kinds().prop_flat_map(written),
        kind in kinds(),
        datums in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4),
    ) {
        let layout = Layout::parse(&text).unwrap();
        let Ok(decoder) = Decoder::compile(&layout, kind) else { return Ok(()) };
        let mut rows = Rows::new(schema);
        for datum in &datums {
            let _ = decoder.check(datum);
            let _ = decoder.statement(datum, &ORIGIN);
            // Even if nobody asked `check`.
            rows.push(&decoder, datum, &ORIGIN);
        }
        prop_assert_eq!(rows.len(), datums.len());
        let _ = rows.finish();
    }
}

/// A contract with a field of each shape.
fn varied() -> Contract {
    let types = ["boolean", "int", "long", "float", "double", "decimal(20,3)", "string", "bytes", "date", "timestamp"];
    let types = types.map(|ty| Type::parse(ty).unwrap());
    let fields = |prefix: &str| {
        let lists = types.iter().step_by(4).map(|ty| Type::List(Box::new(ty.clone())));
        let named = types.iter().cloned().chain(lists).enumerate();
        named.map(|(n, ty)| oracle::field(&format!("{prefix}{n}"), ty)).collect::<Vec<_>>()
    };
    let labels = types.iter().enumerate().map(|(n, ty)| oracle::label(&format!("l{n}"), ty.clone())).collect();
    Contract { features: fields("f"), prediction: fields("p"), ..crate::label::tests::contract(labels) }
}

/// Records in which most fields have a value.
fn samples(writer: &Writer, count: usize) -> Vec<Record> {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let records = oracle::records(&writer.layout);
    (0..count).map(|_| records.new_tree(&mut runner).unwrap().current()).collect()
}

/// Every truncation is refused; every changed byte is refused or makes a row, and of what is not refused apache-avro
/// reads the same.
#[test]
fn corruption_is_refused_or_is_another_message() {
    let contract = varied();
    let mut taken = 0;
    for kind in [Kind::Predictions, Kind::Outcomes] {
        let (text, schema) = texts(&contract, kind);
        let writer = Writer::new(text, kind);
        let avro = AvroSchema::parse_str(&writer.text).unwrap();
        let reader = GenericDatumReader::builder(&avro).build().unwrap();
        for record in samples(&writer, 4) {
            let datum = writer.encode(&record);
            for end in 0..datum.len() {
                writer.decoder.check(&datum[..end]).unwrap_err();
            }
            let mut rows = Rows::new(schema.clone());
            for at in 0..datum.len() {
                for change in 1..=255_u8 {
                    let mut changed = datum.clone();
                    changed[at] ^= change;
                    if writer.decoder.check(&changed).is_err() {
                        continue;
                    }
                    taken += 1;
                    rows.push(&writer.decoder, &changed, &ORIGIN);
                    let batch = rows.finish().unwrap();
                    let mut bytes = changed.as_slice();
                    let value = reader.read_value(&mut bytes).unwrap();
                    assert!(bytes.is_empty());
                    let read = oracle::decoded(&writer.layout, value);
                    assert_eq!(oracle::cells(&batch, 0), expected(&read), "byte {at}, {change:02x}");
                }
            }
        }
    }
    assert!(taken > 1000, "too few changes make another message to say anything: {taken}");
}

/// Zig-zag varint.
fn long(value: i64) -> Vec<u8> {
    let mut bits = (value << 1 ^ value >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    while bits > 0x7f {
        bytes.push(u8::try_from(bits & 0x7f).unwrap() | 0x80);
        bits >>= 7;
    }
    bytes.push(u8::try_from(bits).unwrap());
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [long(i64::try_from(text.len()).unwrap()), text.into()].concat()
}

/// A writer of predictions whose one feature is `x`, and a datum without the bytes of `x`.
fn only(ty: &Json) -> (Writer, Vec<u8>) {
    let features = json!({"type": "record", "name": "f", "fields": [{"name": "x", "type": ty}]});
    let schema = json!({"type": "record", "name": "r", "fields": [
        {"name": "prediction_id", "type": "string"},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "features", "type": features},
    ]});
    (Writer::new(schema.to_string(), Kind::Predictions), [string("id"), long(0)].concat())
}

fn fault(writer: &Writer, datum: &[u8]) -> Option<(String, usize, DatumFault)> {
    match writer.decoder.check(datum) {
        Ok(_) => None,
        Err(DecodeError::Datum { field, position, fault }) => Some((field, position, fault)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn each_fault_has_its_name_and_place() {
    use DatumFault::*;
    let list = |item: &str| json!({"type": "array", "items": item});
    let decimal = json!({"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1});
    let wide = json!({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 1});
    let int = json!("int");
    let ten = |last: u8| [[0xff; 9].as_slice(), &[last]].concat();
    for (ty, bytes, expected) in [
        (json!("boolean"), vec![1], None),
        (json!("boolean"), vec![2], Some(Boolean)),
        (json!("boolean"), vec![], Some(Truncated)),
        (json!("double"), vec![0; 8], None),
        (json!("double"), vec![0; 7], Some(Truncated)),
        (json!("long"), ten(0x01), None),
        (json!("long"), ten(0x02), Some(Varint)),
        (json!("long"), ten(0x81), Some(Varint)),
        (json!("long"), vec![0x80], Some(Truncated)),
        (int.clone(), long(i32::MAX.into()), None),
        (int.clone(), long(i32::MIN.into()), None),
        (int.clone(), long(i64::from(i32::MAX) + 1), Some(IntRange)),
        (int.clone(), long(i64::from(i32::MIN) - 1), Some(IntRange)),
        (json!({"type": "int", "logicalType": "date"}), long(1 << 40), Some(IntRange)),
        (json!("string"), string("ä"), None),
        (json!("string"), vec![4, 0xc3, 0x28], Some(Utf8)),
        (json!("string"), vec![2], Some(Length)),
        (json!("bytes"), long(-1), Some(Length)),
        (json!("bytes"), long(i64::MAX), Some(Length)),
        (json!(["null", "int"]), vec![0], None),
        (json!(["null", "int"]), vec![4], Some(Branch)),
        (json!(["null", "int"]), vec![1], Some(Branch)),
        (list("int"), vec![4, 2, 4, 0], None),
        (list("int"), vec![2, 2, 2, 4, 0], None),
        // A negative count comes with the size of its block.
        (list("int"), [long(-2), long(2), vec![2, 4, 0]].concat(), None),
        (list("int"), [long(-2), long(3), vec![2, 4, 0]].concat(), Some(BlockSize)),
        (list("int"), [long(-2), long(1), vec![2, 4, 0]].concat(), Some(BlockSize)),
        (list("int"), [long(-2), long(9), vec![2, 4, 0]].concat(), Some(BlockSize)),
        (list("int"), [long(-2), long(-1), vec![2, 4, 0]].concat(), Some(BlockSize)),
        (list("int"), long(i64::MIN), Some(Truncated)),
        (list("int"), [long(i64::MIN), long(1), vec![0]].concat(), Some(BlockCount)),
        (list("int"), [long(i64::MAX), vec![0]].concat(), Some(BlockCount)),
        (list("int"), [long(4), vec![2, 2]].concat(), Some(BlockCount)),
        (list("int"), vec![2, 2], Some(Truncated)),
        (decimal.clone(), vec![4, 0x03, 0xe7], None),
        (decimal.clone(), vec![4, 0xfc, 0x19], None),
        (decimal.clone(), vec![4, 0x03, 0xe8], Some(Decimal)),
        (decimal.clone(), vec![4, 0xfc, 0x18], Some(Decimal)),
        (decimal.clone(), vec![0], Some(Decimal)),
        (wide.clone(), [long(17), vec![0xff; 17]].concat(), None),
        (wide.clone(), [long(17), vec![0; 17]].concat(), None),
        (wide.clone(), [long(17), vec![0], vec![0xff; 16]].concat(), Some(Decimal)),
        (wide.clone(), [long(17), vec![0xff], vec![0; 16]].concat(), Some(Decimal)),
        (wide, [long(17), vec![1], vec![0; 16]].concat(), Some(Decimal)),
    ] {
        let (writer, head) = only(&ty);
        let datum = [head.as_slice(), &bytes].concat();
        let found = fault(&writer, &datum);
        assert_eq!(found.as_ref().map(|(.., fault)| *fault), expected, "{ty} {bytes:?}");
        if let Some((field, position, _)) = found {
            assert_eq!(field, "features.x");
            assert!(position >= head.len(), "{position}");
        } else {
            assert_eq!(fault(&writer, &[&datum[..], &[0]].concat()), Some((String::new(), datum.len(), Trailing)));
        }
    }
}

#[test]
fn a_row_needs_its_keys() {
    let nullable = |name: &str, ty: Json| json!({"name": name, "type": ["null", ty]});
    let time = json!({"type": "long", "logicalType": "timestamp-micros"});
    let fields = [
        nullable("prediction_id", json!("string")),
        nullable("event_time", time),
        nullable("event_id", json!("string")),
        nullable("op", json!("string")),
    ];
    let schema = json!({"type": "record", "name": "r", "fields": fields});
    let writer = Writer::new(schema.to_string(), Kind::Outcomes);
    let present = |bytes: Vec<u8>| [vec![2], bytes].concat();
    let (id, event, op) = (present(string("a")), present(string("e")), present(string("assert")));
    let time = |us| present(long(us));
    let null = vec![0];
    for (parts, expected) in [
        ([&id, &time(0), &event, &op], None),
        ([&id, &time(0), &event, &null], None),
        ([&null, &time(0), &event, &op], Some(("prediction_id", DatumFault::Null))),
        ([&id, &null, &event, &op], Some(("event_time", DatumFault::Null))),
        ([&id, &time(0), &null, &op], Some(("event_id", DatumFault::Null))),
        ([&id, &time(0), &event, &present(string("Assert"))], Some(("op", DatumFault::Op))),
        ([&id, &time(*TIME_US.end()), &event, &op], None),
        ([&id, &time(*TIME_US.start()), &event, &op], None),
        ([&id, &time(TIME_US.end() + 1), &event, &op], Some(("event_time", DatumFault::Time))),
        ([&id, &time(TIME_US.start() - 1), &event, &op], Some(("event_time", DatumFault::Time))),
    ] {
        let datum = parts.into_iter().flatten().copied().collect::<Vec<u8>>();
        let found = fault(&writer, &datum);
        let found = found.as_ref().map(|(field, _, fault)| (field.as_str(), *fault));
        assert_eq!(found, expected, "{datum:?}");
    }
    let long = vec![0; DATUM_BYTES_MAX + 1];
    assert_eq!(fault(&writer, &long).map(|(.., fault)| fault), Some(DatumFault::TooLong));
}

#[test]
fn no_time_comes_into_a_table_that_its_readers_do_not_know() {
    let nullable = |name: &str, ty: Json| json!({"name": name, "type": ["null", ty]});
    let time = json!({"type": "long", "logicalType": "timestamp-micros"});
    let features = json!({"type": "record", "name": "features", "fields": [
        nullable("at", time.clone()),
        nullable("day", json!({"type": "int", "logicalType": "date"})),
        nullable("times", json!({"type": "array", "items": time.clone()})),
    ]});
    let fields = [
        nullable("prediction_id", json!("string")),
        nullable("event_time", time),
        nullable("contract_version", json!("int")),
        nullable("features", features),
    ];
    let schema = json!({"type": "record", "name": "r", "fields": fields});
    let writer = Writer::new(schema.to_string(), Kind::Predictions);
    let present = |bytes: Vec<u8>| [vec![2], bytes].concat();
    let (first, last) = (i64::from(*DAYS.start()), i64::from(*DAYS.end()));
    for (at, day, item, expected) in [
        (*TIME_US.start(), first, *TIME_US.end(), None),
        (TIME_US.start() - 1, first, 0, Some("at")),
        (i64::MAX, last, 0, Some("at")),
        (0, last + 1, 0, Some("day")),
        (0, first - 1, 0, Some("day")),
        (0, last, TIME_US.end() + 1, Some("times")),
    ] {
        let list = [long(1), long(item), long(0)].concat();
        let features = [present(long(at)), present(long(day)), present(list)].concat();
        let parts = [present(string("a")), present(long(0)), present(long(1)), present(features)];
        let found = fault(&writer, &parts.concat());
        let found = found.as_ref().map(|(field, _, fault)| (field.as_str(), *fault));
        assert_eq!(found, expected.map(|field| (field, DatumFault::Time)));
    }
}

#[test]
fn the_years_that_tables_hold() {
    let us = |date: &str| chrono::DateTime::parse_from_rfc3339(date).unwrap().timestamp_micros();
    assert_eq!(*TIME_US.start(), us("0001-01-01T00:00:00Z"));
    assert_eq!(*TIME_US.end(), us("9999-12-31T23:59:59.999999Z"));
    const DAY_US: i64 = 86_400_000_000;
    assert_eq!(TIME_US.start().div_euclid(DAY_US), i64::from(*DAYS.start()));
    assert_eq!(TIME_US.end().div_euclid(DAY_US), i64::from(*DAYS.end()));
}

#[test]
fn a_schema_without_a_place_in_the_table_is_refused() {
    let time = json!({"type": "long", "logicalType": "timestamp-micros"});
    let field = |name: &str, ty: Json| json!({"name": name, "type": ty});
    let record = |name: &str, fields: Vec<Json>| json!({"type": "record", "name": name, "fields": fields});
    let id = || field("prediction_id", json!("string"));
    let keys = |more: Json| vec![id(), field("event_time", time.clone()), more];
    let x = || vec![field("x", json!("int"))];
    let array = |items: Json| json!({"type": "array", "items": items});
    let (predictions, outcomes) = (Kind::Predictions, Kind::Outcomes);
    for (kind, fields, said) in [
        (predictions, vec![field("event_time", time.clone())], "no field `prediction_id`"),
        (predictions, vec![id()], "no field `event_time`"),
        (outcomes, keys(field("op", json!("string"))), "no field `event_id`"),
        (
            predictions,
            vec![id(), field("event_time", json!("long"))],
            "`event_time` of the schema is long, but must be timestamp",
        ),
        (predictions, keys(field("rank", json!("string"))), "must be int"),
        (predictions, keys(field("what", record("w", x()))), "field `what`"),
        (predictions, keys(field("label", record("w", x()))), "field `label`"),
        (outcomes, keys(field("features", record("w", x()))), "field `features`"),
        (predictions, keys(field("what", array(record("w", x())))), "an array of records"),
        (predictions, keys(field("feature_provenance", array(record("w", vec![])))), "without fields"),
        (predictions, keys(field("features", record("w", vec![field("r", record("v", x()))]))), "`features.r`"),
        (
            predictions,
            keys(field("features", record("w", vec![field("r", array(array(json!("int"))))]))),
            "a list of lists",
        ),
        (
            outcomes,
            [
                keys(field("event_id", json!("string"))),
                vec![field("label", record("w", vec![field("r", array(json!("int")))]))],
            ]
            .concat(),
            "a list as a label",
        ),
        (predictions, keys(field("features", record("w", vec![field("rank", json!("int"))]))), ""),
        (
            predictions,
            [
                keys(field("rank", json!("int"))),
                vec![field("features", record("w", vec![field("rank", json!("int"))]))],
            ]
            .concat(),
            "the column `rank`",
        ),
    ] {
        let layout = Layout::parse(&record("r", fields).to_string()).unwrap();
        let error = Decoder::compile(&layout, kind).map_or_else(|error| error.to_string(), |_| String::new());
        assert!(error.contains(said) && error.is_empty() == said.is_empty(), "{said}: {error}");
    }
}

#[test]
fn an_unknown_plain_field_is_walked_over_and_named() {
    let time = json!({"type": "long", "logicalType": "timestamp-micros"});
    let schema = json!({"type": "record", "name": "r", "fields": [
        {"name": "kafka_offset", "type": "long"}, {"name": "novelty", "type": {"type": "array", "items": "string"}},
        {"name": "prediction_id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "event_time", "type": time},
    ]});
    let writer = Writer::new(schema.to_string(), Kind::Predictions);
    assert_eq!(writer.decoder.ignored(), ["kafka_offset", "novelty"]);
    let mut rows = Rows::new(oracle::predictions_schema(&varied()));
    let datum = [long(5), long(1), string("n"), long(0), string("id"), long(9)].concat();
    assert_eq!(writer.decoder.check(&datum).unwrap().prediction_id, "id");
    rows.push(&writer.decoder, &datum, &Origin { producer_id: None, producer_seq: None, ..ORIGIN });
    let cells = oracle::cells(&rows.finish().unwrap(), 0);
    assert_eq!(cells["kafka_offset"], format!("Long({})", 1_u64 << 40));
    assert_eq!(cells.len(), 5, "{cells:?}");
}

#[test]
fn a_table_that_lacks_a_column_is_noticed() {
    let (old, new) = (crate::label::tests::contract(vec![]), varied());
    let writer = Writer::new(prediction_schema(&new), Kind::Predictions);
    let rows = Rows::new(oracle::predictions_schema(&old));
    assert!(matches!(rows.fits(&writer.decoder), Err(DecodeError::NoColumn(column)) if column == "f0"));
    // The other way round is how tables grow.
    let writer = Writer::new(prediction_schema(&old), Kind::Predictions);
    Rows::new(oracle::predictions_schema(&new)).fits(&writer.decoder).unwrap();

    let with = |ty| Contract { features: vec![oracle::field("f", ty)], ..crate::label::tests::contract(vec![]) };
    for (writes, holds, fits) in [
        ("int", "long", false),
        ("uuid", "string", true),
        ("decimal(5,2)", "decimal(5,2)", true),
        ("decimal(5,2)", "decimal(6,2)", true),
        ("decimal(6,2)", "decimal(5,2)", false),
        ("decimal(5,2)", "decimal(5,1)", false),
        ("list<int>", "list<int>", true),
        ("list<int>", "list<long>", false),
        ("int", "list<int>", false),
    ] {
        let [writes_ty, holds_ty] = [writes, holds].map(|ty| Type::parse(ty).unwrap());
        let writer = Writer::new(prediction_schema(&with(writes_ty)), Kind::Predictions);
        let mut rows = Rows::new(oracle::predictions_schema(&with(holds_ty)));
        assert_eq!(rows.fits(&writer.decoder).is_ok(), fits, "{writes} into {holds}");
        // Pushed all the same, it makes a null and no harm.
        for record in samples(&writer, 3) {
            rows.push(&writer.decoder, &writer.encode(&record), &ORIGIN);
        }
        let batch = rows.finish().unwrap();
        assert!(fits || batch.column_by_name("f").unwrap().null_count() == 3);
    }
}

#[test]
fn rows_of_many_schemas_stand_in_one_batch() {
    let contract = varied();
    let text = prediction_schema(&contract);
    let mut rows = Rows::new(oracle::predictions_schema(&contract));
    let mut records = Vec::new();
    // More schemas than a batch remembers.
    for seed in 0..80_u64 {
        let writer = Writer::new(if seed % 7 == 0 { text.clone() } else { foreign(&text, seed) }, Kind::Predictions);
        for record in samples(&writer, 2) {
            rows.push(&writer.decoder, &writer.encode(&record), &ORIGIN);
            records.push(record);
        }
    }
    let batch = rows.finish().unwrap();
    for (row, record) in records.iter().enumerate() {
        assert_eq!(oracle::cells(&batch, row), expected(record));
    }
}

#[test]
fn a_batch_that_is_too_large_is_an_error_and_no_loss_in_silence() {
    let contract = varied();
    let writer = Writer::new(prediction_schema(&contract), Kind::Predictions);
    let mut rows = Rows::new(oracle::predictions_schema(&contract));
    let datum = writer.encode(&samples(&writer, 1)[0]);
    rows.push(&writer.decoder, &datum, &ORIGIN);
    rows.bytes = ROWS_BYTES_MAX;
    rows.push(&writer.decoder, &datum, &ORIGIN);
    assert_eq!(rows.len(), 1);
    assert!(matches!(rows.finish(), Err(DecodeError::Overfull)));
    rows.push(&writer.decoder, &datum, &ORIGIN);
    assert_eq!(rows.finish().unwrap().num_rows(), 1);
}

#[test]
fn records_of_no_model_keep_their_own_columns() {
    let text = ledger_schema();
    let layout = Layout::parse(&text).unwrap();
    let decoder = Decoder::plain(&layout).unwrap();
    let schema = oracle::arrow_schema(&table::ledger());
    let mut rows = Rows::new(schema.clone());
    rows.fits(&decoder).unwrap();
    let writer = Writer { text, layout, decoder: decoder.clone() };
    let mut records = samples(&writer, 4);
    for record in &mut records {
        record.insert("at".to_owned(), Given::Scalar(Scalar::Timestamp(5)));
        let datum = writer.encode(record);
        decoder.check_plain(&datum).unwrap();
        rows.push(&decoder, &datum, &ORIGIN);
    }
    let batch = rows.finish().unwrap();
    assert_eq!(batch.schema(), schema);
    for (row, record) in records.iter().enumerate() {
        assert_eq!(oracle::cells(&batch, row), oracle::expected(record));
    }
    let record = &mut records[0];
    record.insert("at".to_owned(), Given::Scalar(Scalar::Timestamp(i64::MAX)));
    let datum = writer.encode(record);
    assert!(matches!(decoder.check_plain(&datum), Err(DecodeError::Datum { fault: DatumFault::Time, .. })));
    assert!(decoder.check_plain(&datum[1..]).is_err());

    // Of a sidecar from before losses had a reason the rows fit. A table without the column does not take the rows of a newer one.
    let mut schema: Json = serde_json::from_str(&writer.text).unwrap();
    schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "reason");
    let older = Decoder::plain(&Layout::parse(&schema.to_string()).unwrap()).unwrap();
    rows.fits(&older).unwrap();
    let mut narrow = table::ledger();
    narrow.columns.retain(|column| column.name != "reason");
    let narrow = Rows::new(oracle::arrow_schema(&narrow));
    assert!(matches!(narrow.fits(&decoder), Err(DecodeError::NoColumn(column)) if column == "reason"));

    // A schema that may lack what each row of the table needs does not fit.
    let mut schema: Json = serde_json::from_str(&writer.text).unwrap();
    schema["fields"][0]["type"] = json!(["null", "string"]);
    let nullable = Decoder::plain(&Layout::parse(&schema.to_string()).unwrap()).unwrap();
    assert!(matches!(rows.fits(&nullable), Err(DecodeError::Optional(column)) if column == "producer_id"));
}

#[test]
fn only_outcomes_make_statements() {
    let writer = Writer::new(prediction_schema(&varied()), Kind::Predictions);
    let datum = writer.encode(&samples(&writer, 1)[0]);
    assert!(matches!(writer.decoder.statement(&datum, &ORIGIN), Err(DecodeError::Kind)));
}

#[test]
fn label_columns_hold_the_states() {
    let old = varied();
    let labels = old.labels.iter().cloned().chain([oracle::label("novel", Type::Uuid)]).collect();
    let new = crate::label::tests::contract(labels);
    let schema = oracle::arrow_schema(&table::training(&new));
    let state = |value: Scalar, status| LabelState {
        value: Some(value),
        status,
        at_us: Some(1_500),
        known_at_ms: Some(2),
        overflow: false,
    };
    let values = [
        Scalar::Boolean(true),
        Scalar::Int(-1),
        Scalar::Long(1 << 50),
        Scalar::Float(-0.0),
        Scalar::Double(f64::NAN),
        Scalar::Decimal(-(10_i128.pow(20) - 1)),
        Scalar::String("ä".to_owned()),
        Scalar::Bytes(vec![0xff]),
        Scalar::Date(-1),
        Scalar::Timestamp(1),
        Scalar::Uuid("u".to_owned()),
    ];
    let all: Vec<_> = values.iter().map(|value| state(value.clone(), Status::Observed)).collect();
    let empty = LabelState { value: None, status: Status::NotExposed, at_us: None, known_at_ms: None, overflow: false };
    let mut columns = LabelColumns::new(schema.clone());
    columns.push(&new, &all);
    columns.push(&old, &all[..10]);
    columns.push(&new, &vec![empty; 11]);
    assert_eq!(columns.len(), 3);

    let (names, arrays): (Vec<_>, Vec<_>) = columns.finish().into_iter().unzip();
    let wanted: Vec<_> = new.labels.iter().flat_map(table::label_columns).map(|column| column.name).collect();
    assert_eq!(names, wanted);
    let indices: Vec<_> = names.iter().map(|name| schema.index_of(name).unwrap()).collect();
    let batch = arrow::array::RecordBatch::try_new(schema.project(&indices).unwrap().into(), arrays).unwrap();
    let (first, second, third) = (oracle::cells(&batch, 0), oracle::cells(&batch, 1), oracle::cells(&batch, 2));
    for (label, value) in new.labels.iter().zip(&values) {
        let name = format!("label_{}", label.name);
        assert_eq!(first[&name], oracle::scalar_bits(value));
        assert_eq!(first[&format!("{name}_status")], "String(\"observed\")");
        assert_eq!(first[&format!("{name}_at")], "Timestamp(1500)");
        assert_eq!(first[&format!("{name}_known_at")], "Timestamp(2000)");
        assert_eq!(third[&format!("{name}_status")], "String(\"not_exposed\")");
    }
    // A label that the row's contract does not have is null in all four columns.
    assert_eq!((first.len(), second.len(), third.len()), (44, 40, 11));
    assert!(!second.keys().any(|name| name.starts_with("label_novel")));
}

#[test]
fn an_outcomes_batch_without_its_keys_is_refused() {
    let contract = varied();
    let writer = Writer::new(outcome_schema(&contract), Kind::Outcomes);
    let mut rows = Rows::new(oracle::outcomes_schema(&contract));
    for record in samples(&writer, 3) {
        rows.push(&writer.decoder, &writer.encode(&record), &ORIGIN);
    }
    let batch = rows.finish().unwrap();
    assert_eq!(statements(&batch).unwrap().len(), 3);
    assert!(batch.column_by_name("labels").unwrap().as_list_opt::<i32>().is_some());
    let without = |name: &str| {
        let kept: Vec<_> = (0..batch.num_columns()).filter(|n| batch.schema().field(*n).name() != name).collect();
        statements(&batch.project(&kept).unwrap())
    };
    for name in ["prediction_id", "event_id", "event_time", "ingest_time", "kafka_partition", "kafka_offset"] {
        assert!(matches!(without(name), Err(DecodeError::Column { column, .. }) if column == name));
    }
    without("source").unwrap();
}
