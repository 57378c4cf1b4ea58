//! From JSON to Avro: the way of the libraries ÷ ours.
//!
//! A prediction of 100 features (70 double, 15 long, 5 each of string, boolean and float), about 3.2 kB of JSON with
//! doubles of 16 and 17 digits. The other side parses into `serde_json::Value`, makes an `apache_avro` record of it,
//! resolves that against the schema and writes the datum. Both sides write the same bytes, which is checked first.

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use flywheel_schemas::contract::{Block, Contract};
use flywheel_sidecar::transcode::{Plan, Receipt, Scratch, prediction};
use serde_json::Value;

use super::{Area, Bar, Measure, compare};

pub const AREA: Area = Area {
    name: "transcode",
    about: "JSON body to Avro datum, 100 features: serde_json and apache-avro ÷ the sidecar",
    run,
};

/// Bodies that take turns, so that no branch is learnt by heart.
const BODIES: u32 = 64;

const NOW_MS: i64 = 1_357_017_300_123;

fn run() -> Result<Vec<Measure>, Box<dyn Error>> {
    let contract = Contract::parse(&contract_text())
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let plan = Plan::compile(Arc::new(contract))?;
    let schema = Schema::parse_str(plan.prediction_schema())?;
    let writer = GenericDatumWriter::builder(&schema).build()?;
    let mut measures = Vec::new();
    for (name, bar, is_shuffled) in
        [("keys in schema order", Bar::AtLeast(8.0), false), ("keys in random order", Bar::AtLeast(4.0), true)]
    {
        let bodies: Vec<String> = (0..u64::from(BODIES)).map(|number| body(number, is_shuffled)).collect();
        let mut scratch = Scratch::default();
        let receipt = Receipt { now_ms: NOW_MS, trace_id: None };
        let mut out = Vec::new();
        for body in &bodies {
            out.clear();
            prediction(&plan, &mut scratch, body.as_bytes(), &receipt, &mut out)
                .map_err(|faults| faults[0].to_string())?;
            if out != by_libraries(&plan, &schema, &writer, body)? {
                return Err("the two sides write different bytes".into());
            }
        }
        let mut measure = compare(
            name,
            bar,
            BODIES,
            &mut || {
                for body in &bodies {
                    let _ = black_box(by_libraries(&plan, &schema, &writer, black_box(body)));
                }
            },
            &mut || {
                for body in &bodies {
                    out.clear();
                    let _ = black_box(prediction(&plan, &mut scratch, black_box(body.as_bytes()), &receipt, &mut out));
                    black_box(&out);
                }
            },
        );
        let (json, avro) = (bodies[0].len(), out.len());
        measure.note = format!("{} a record; {json} B of JSON, {avro} B of Avro", measure.note);
        measures.push(measure);
    }
    Ok(measures)
}

/// The datum by way of the two trees of values.
fn by_libraries(
    plan: &Plan,
    schema: &Schema,
    writer: &GenericDatumWriter<'_>,
    body: &str,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let Value::Object(members) = serde_json::from_str(body)? else { return Err("no object".into()) };
    let mut fields = Vec::with_capacity(members.len() + 4);
    for (name, value) in members {
        let value = match value {
            // A JSON object becomes a map, which no union of null and a record takes.
            Value::Object(members) if Block::ALL.iter().any(|block| block.name() == name) => {
                let fields: Result<Vec<_>, _> =
                    members.into_iter().map(|(name, value)| Avro::try_from(value).map(|value| (name, value))).collect();
                Avro::Record(fields?)
            }
            other => Avro::try_from(other)?,
        };
        fields.push((name, value));
    }
    fields.push(("contract_version".to_owned(), Avro::Int(plan.contract().version)));
    fields.push(("exposure".to_owned(), Avro::String("served".to_owned())));
    fields.push(("sampling_rate".to_owned(), Avro::Double(1.0)));
    fields.push(("sample_weight".to_owned(), Avro::Double(1.0)));
    let resolved = Avro::Record(fields).resolve(schema)?;
    let mut datum = Vec::with_capacity(1024);
    writer.write_value_ref(&mut datum, &resolved)?;
    Ok(datum)
}

/// The types of the features, mixed as a table of features would be.
fn feature_type(place: u64) -> &'static str {
    match place % 20 {
        3 | 9 | 15 => "long",
        5 => "string",
        11 => "boolean",
        17 => "float",
        _ => "double",
    }
}

pub(crate) fn contract_text() -> String {
    let features: String =
        (0..100).map(|place| format!("  feature_{place:02}: {{type: {}}}\n", feature_type(place))).collect();
    format!(
        "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: bench\nversion: 1\n\
         entity:\n  customer: {{type: string}}\nfeatures:\n{features}\
         prediction:\n  score: {{type: double, required: true}}\n\
         labels:\n  good: {{type: boolean, window: 1h, lateness: 10m, aggregate: any, default: false}}\n"
    )
}

pub(crate) fn body(number: u64, is_shuffled: bool) -> String {
    let mut random = Random(number);
    let mut features: Vec<String> = (0..100)
        .map(|place| {
            let value = match feature_type(place) {
                "long" => (random.next() >> 40).to_string(),
                "string" => format!("\"category-{}\"", random.next() % 1000),
                "boolean" => (random.next() & 1 == 0).to_string(),
                "float" => (random.unit() as f32).to_string(),
                _ => (random.unit() * 10_f64.powi((random.next() % 4) as i32)).to_string(),
            };
            format!("\"feature_{place:02}\":{value}")
        })
        .collect();
    if is_shuffled {
        for place in (1..features.len()).rev() {
            features.swap(place, (random.next() % (place as u64 + 1)) as usize);
        }
    }
    let id = flywheel_schemas::id::from_parts(NOW_MS, [7; 10]);
    format!(
        "{{\"prediction_id\":\"{id}\",\"event_time\":{},\"request_id\":\"req-{number}\",\"model_version\":\"2013-01-01\",\
         \"entity\":{{\"customer\":\"c-{number}\"}},\"features\":{{{}}},\"prediction\":{{\"score\":{}}}}}",
        NOW_MS * 1000,
        features.join(","),
        random.unit(),
    )
}

/// SplitMix64 (Steele, Lea and Flood, 2014): the same bodies in every run.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
