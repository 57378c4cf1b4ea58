//! Against apache-avro: any contract, any values, keys in any order, any white space and escapes give the bytes that
//! apache-avro gives for the same values.

use apache_avro::writer::datum::GenericDatumWriter;
use flywheel_schemas::contract::Block;
use proptest::prelude::*;

use super::*;

/// A type with a value of it, as JSON text and as apache-avro has it.
#[derive(Debug, Clone)]
pub struct Sample {
    ty: Type,
    json: String,
    avro: Value,
}

fn sample(ty: Type, json: String, avro: Value) -> Sample {
    Sample { ty, json, avro }
}

fn any_double() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-1e6..1e6),
        (0.0..1.0),
        (-1000_i32..1000).prop_map(f64::from),
        (any::<i64>(), 0..30_i32).prop_map(|(n, e)| n as f64 / 10_f64.powi(e)),
    ]
    .prop_map(|value| if value.is_nan() { f64::NAN } else { value })
}

/// One of the notations of a float; all of them are read as the same bits.
fn notation(value: f64, choice: u8) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        match choice % 5 {
            0 => format!("{value}"),
            1 => format!("{value:e}"),
            2 => format!("{value:E}").replace('E', "E+").replace("E+-", "E-0"),
            3 => format!("{value:.17e}"),
            _ => format!("{value:?}"),
        }
    }
}

fn float_notation(value: f32, choice: u8) -> String {
    if !value.is_finite() {
        return notation(value.into(), choice);
    }
    match choice % 3 {
        0 => format!("{value}"),
        1 => format!("{value:e}"),
        _ => format!("{value:.9e}"),
    }
}

/// JSON text of `text`, with escapes where `choices` say so and where they must be.
fn quoted(text: &str, choices: &[u8]) -> String {
    let mut json = String::from('"');
    let mut choices = choices.iter().copied().cycle();
    for character in text.chars() {
        let choice = choices.next().unwrap_or(0) % 8;
        let short = match character {
            '"' => Some('"'),
            '\\' => Some('\\'),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            '\u{8}' => Some('b'),
            '\u{c}' => Some('f'),
            '/' if choice < 4 => Some('/'),
            _ => None,
        };
        match short {
            Some(short) if choice != 7 => json.extend(['\\', short]),
            _ if choice == 7 || character < ' ' || short.is_some() => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    json += &if choice % 2 == 0 { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") };
                }
            }
            _ => json.push(character),
        }
    }
    json.push('"');
    json
}

fn scalar() -> impl Strategy<Value = Sample> {
    let choices = || prop::collection::vec(any::<u8>(), 1..6);
    let text = prop_oneof!["[a-zA-Z0-9_ ]{0,40}", any::<String>(), "[\u{0}-\u{20}\"\\\\/é😀]{0,12}"];
    prop_oneof![
        any::<bool>().prop_map(|v| sample(Type::Boolean, v.to_string(), Value::Boolean(v))),
        any::<i32>().prop_map(|v| sample(Type::Int, v.to_string(), Value::Int(v))),
        prop_oneof![any::<i64>(), -200..200_i64].prop_map(|v| sample(Type::Long, v.to_string(), Value::Long(v))),
        (any_double(), any::<u8>()).prop_map(|(v, c)| sample(Type::Double, notation(v, c), Value::Double(v))),
        any::<i64>().prop_map(|v| sample(Type::Double, v.to_string(), Value::Double(v as f64))),
        (any::<u32>().prop_map(f32::from_bits), any::<u8>()).prop_map(|(v, c)| {
            let v = if v.is_nan() { f32::NAN } else { v };
            sample(Type::Float, float_notation(v, c), Value::Float(v))
        }),
        decimal(),
        (text, choices()).prop_map(|(v, c)| sample(Type::String, quoted(&v, &c), Value::String(v))),
        (prop::collection::vec(any::<u8>(), 0..40), choices()).prop_map(|(v, c)| {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(&v);
            sample(Type::Bytes, quoted(&text, &c), Value::Bytes(v))
        }),
        (1..=9999_i32, 1..=12_u32, 1..=28_u32).prop_map(|(y, m, d)| {
            let days = time_days(y, m, d);
            sample(Type::Date, format!("\"{y:04}-{m:02}-{d:02}\""), Value::Date(days))
        }),
        crate::transcode::time::MICROS.prop_map(|v| sample(Type::Timestamp, v.to_string(), Value::TimestampMicros(v))),
        instant(),
        (any::<u128>(), any::<bool>()).prop_map(|(v, upper)| {
            let uuid = uuid::Uuid::from_u128(v);
            let text = if upper { uuid.to_string().to_uppercase() } else { uuid.to_string() };
            sample(Type::Uuid, format!("\"{text}\""), Value::Uuid(uuid))
        }),
    ]
}

/// Days since the epoch by counting years and months one at a time.
pub fn time_days(year: i32, month: u32, day: u32) -> i32 {
    let is_leap = |year: i32| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: i32 = if year >= 1970 {
        (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum()
    } else {
        -(year..1970).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<i32>()
    };
    let months: i32 = lengths.iter().take(month as usize - 1).sum();
    years + months + day as i32 - 1
}

fn instant() -> impl Strategy<Value = Sample> {
    let offset = prop_oneof![Just(None), (-1439..=1439_i64).prop_map(Some)];
    ((1900..2100_i32, 1..=12_u32, 1..=28_u32), 0..86_400_i64, 0..1_000_000_i64, 0..=6_usize, offset).prop_map(
        |((y, m, d), seconds, micros, digits, offset)| {
            let micros = micros - micros % 10_i64.pow(6 - digits as u32);
            let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            let mut text = format!("{y:04}-{m:02}-{d:02}T{hour:02}:{minute:02}:{second:02}");
            if digits > 0 {
                text += &format!(".{:.digits$}", format!("{micros:06}"));
            }
            match offset {
                None => text.push('Z'),
                Some(o) => {
                    text += &format!("{}{:02}:{:02}", if o < 0 { '-' } else { '+' }, o.abs() / 60, o.abs() % 60);
                }
            }
            let value = i64::from(time_days(y, m, d)) * 86_400 + seconds - offset.unwrap_or(0) * 60;
            sample(Type::Timestamp, format!("\"{text}\""), Value::TimestampMicros(value * 1_000_000 + micros))
        },
    )
}

fn decimal() -> impl Strategy<Value = Sample> {
    (1..=38_u8, any::<i128>(), 0..200_u8).prop_flat_map(|(precision, value, small)| {
        (0..=precision).prop_map(move |scale| {
            let value = value >> (small % 127);
            let value = value % 10_i128.pow(precision.into());
            let digits = format!("{:0width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            let sign = if value < 0 { "-" } else { "" };
            let point = if fraction.is_empty() { "" } else { "." };
            let width = (1..16).find(|width| (value << (128 - 8 * width)) >> (128 - 8 * width) == value).unwrap_or(16);
            let bytes = value.to_be_bytes()[16 - width..].to_vec();
            sample(
                Type::Decimal { precision, scale },
                format!("\"{sign}{whole}{point}{fraction}\""),
                Value::Decimal(bytes.into()),
            )
        })
    })
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let list = prop::collection::vec(scalar(), 0..6).prop_map(|mut items| {
        // Any of the types will do, for the items that are of it.
        let ty = items.first().map_or(Type::Double, |item| item.ty.clone());
        items.retain(|item| item.ty == ty);
        let json: Vec<String> = items.iter().map(|item| item.json.clone()).collect();
        let avro = items.into_iter().map(|item| item.avro).collect();
        sample(Type::List(Box::new(ty)), format!("[{}]", json.join(" , ")), Value::Array(avro))
    });
    prop_oneof![8 => scalar(), 1 => list]
}

/// What becomes of a declared field in the body.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    Given,
    Null,
    Absent,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Given), 1 => Just(Fate::Null), 1 => Just(Fate::Absent)]
}

/// Fields of a block, and the order of their keys in the body.
pub type Fields = (Vec<(Sample, Fate)>, Vec<usize>);

fn fields() -> impl Strategy<Value = Fields> {
    (prop::collection::vec((any_sample(), fate()), 0..12), any::<bool>()).prop_flat_map(|(fields, shuffled)| {
        let order: Vec<usize> = (0..fields.len()).collect();
        let order = if shuffled { Just(order).prop_shuffle().boxed() } else { Just(order).boxed() };
        (Just(fields), order)
    })
}

fn object(members: &[(String, String)], space: &str) -> String {
    let members: Vec<String> =
        members.iter().map(|(key, value)| format!("{space}\"{key}\"{space}:{space}{value}{space}")).collect();
    format!("{{{}}}", if members.is_empty() { space.to_owned() } else { members.join(",") })
}

fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

fn none() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

/// A body of any contract: the fields of each block, the order of the body's keys, and the white space between them.
pub type Case = ([Fields; 5], Vec<usize>, String);

pub fn case() -> impl Strategy<Value = Case> {
    let order = Just(vec![0, 1, 2, 3, 4, 5, 6]).prop_shuffle();
    (prop::array::uniform5(fields()), order, "[ \n\r\t]{0,2}")
}

/// Whether the datum of a prediction is that which apache-avro writes for the same values, to the bit.
///
/// # Errors
/// The body, and what is different.
pub fn check_case((blocks, order, space): &Case) -> Result<(), String> {
    let mut contract = Contract {
        entity: vec![],
        features: vec![],
        prediction: vec![],
        decision: vec![],
        context: vec![],
        ..flights()
    };
    let mut members = vec![
        ("event_time".to_owned(), format!("{}", NOW_MS * 1000)),
        ("model_version".to_owned(), "\"v1\"".to_owned()),
    ];
    let mut record = vec![];
    for (block, (samples, key_order)) in Block::ALL.into_iter().zip(blocks) {
        // One prefix per block, as a name occurs once in a contract.
        let name = |place: usize| format!("{}_{place}", block.name());
        let declared = samples.iter().enumerate().map(|(place, (sample, _))| field(&name(place), sample.ty.clone()));
        match block {
            Block::Entity => contract.entity = declared.collect(),
            Block::Features => contract.features = declared.collect(),
            Block::Prediction => contract.prediction = declared.collect(),
            Block::Decision => contract.decision = declared.collect(),
            Block::Context => contract.context = declared.collect(),
        }
        let keys = key_order.iter().filter_map(|place| match &samples[*place] {
            (sample, Fate::Given) => Some((name(*place), sample.json.clone())),
            (_, Fate::Null) => Some((name(*place), "null".to_owned())),
            (_, Fate::Absent) => None,
        });
        let keys: Vec<(String, String)> = keys.collect();
        members.push((block.name().to_owned(), object(&keys, space)));
        if !samples.is_empty() {
            let values = samples.iter().enumerate().map(|(place, (sample, fate))| {
                let value = if matches!(fate, Fate::Given) { some(sample.avro.clone()) } else { none() };
                (name(place), value)
            });
            record.push((block.name().to_owned(), some(Value::Record(values.collect()))));
        }
    }
    let members: Vec<(String, String)> = order.iter().map(|place| members[*place].clone()).collect();
    let body = object(&members, space);

    let plan = plan(contract);
    let mut out = Vec::new();
    let served = prediction(&plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut out)
        .map_err(|faults| format!("{body}: {faults:?}"))?;

    let text = |text: &str| Value::String(text.to_owned());
    let mut expected = vec![
        ("prediction_id", text(&served.prediction_id)),
        ("event_time", Value::TimestampMicros(NOW_MS * 1000)),
        ("contract_version", Value::Int(3)),
        ("request_id", none()),
        ("parent_prediction_id", none()),
        ("trace_id", none()),
        ("model_version", some(text("v1"))),
        ("variant", none()),
        ("exposure", some(text("served"))),
        ("rank", none()),
        ("status", none()),
        ("latency_us", none()),
        ("sampling_rate", some(Value::Double(1.0))),
        ("sample_weight", some(Value::Double(1.0))),
        ("feature_provenance", none()),
        ("flags", none()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect::<Vec<_>>();
    expected.extend(record);
    let schema = Schema::parse_str(plan.prediction_schema()).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let bytes = writer.write_value_to_vec(Value::Record(expected)).unwrap();
    if out != bytes {
        return Err(format!("{body}: {out:?} instead of {bytes:?}"));
    }
    // And what apache-avro reads from ours is the same to the bit.
    let again = writer.write_value_to_vec(decode(plan.prediction_schema(), &out)).unwrap();
    if out == again { Ok(()) } else { Err(format!("{body}: {out:?} is read as {again:?}")) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_those_of_apache_avro(case in case()) {
        check_case(&case).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn labels_are_those_of_apache_avro((samples, key_order) in fields()) {
        let labels = samples.iter().enumerate();
        let labels = labels.map(|(place, (sample, _))| label(&format!("l{place}"), sample.ty.clone(), Aggregate::Last));
        let plan = plan(Contract { labels: labels.collect(), ..flights() });
        let is_given = |place: usize| matches!(samples[place].1, Fate::Given);
        let keys: Vec<(String, String)> = key_order.iter().filter(|place| is_given(**place))
            .map(|place| (format!("l{place}"), samples[*place].0.json.clone())).collect();
        prop_assume!(!keys.is_empty());
        let id = "013bf4c4-a1bb-7000-8000-000000000001";
        let body = format!(r#"{{"labels":{},"prediction_id":"{id}","event_time":1,"op_time":2}}"#, object(&keys, ""));
        let mut out = Vec::new();
        let stated = outcome(&plan, &mut Scratch::default(), body.as_bytes(), &RECEIPT, &mut out);
        let stated = stated.map_err(|faults| TestCaseError::fail(format!("{body}: {faults:?}")))?;
        let text = |text: &str| Value::String(text.to_owned());
        let values = samples.iter().enumerate().map(|(place, (sample, _))| {
            (format!("l{place}"), if is_given(place) { some(sample.avro.clone()) } else { none() })
        });
        let expected = [
            ("prediction_id", text(id)),
            ("event_id", text(&stated.event_id)),
            ("outcome_id", text("")),
            ("revision", Value::Long(0)),
            ("op", text("assert")),
            ("op_time", Value::TimestampMicros(2)),
            ("event_time", Value::TimestampMicros(1)),
            ("contract_version", Value::Int(3)),
            ("source", none()),
            ("labels", none()),
            ("label", some(Value::Record(values.collect()))),
        ].into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let schema = Schema::parse_str(plan.outcome_schema()).unwrap();
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        prop_assert_eq!(out, writer.write_value_to_vec(Value::Record(expected)).unwrap(), "{}", body);
    }
}
