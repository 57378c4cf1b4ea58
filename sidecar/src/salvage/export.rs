//! `spool export`: records as JSON, a line each.
//!
//! ```text
//! {"spool", "sequence", "kind", "time", "producer_id", "producer_seq", "key", "event_id", "traceparent",
//!  "schema_sha256", "datum": {…}}
//! ```
//! Where the datum cannot be shown by its schema there is `"fault"` and `"datum_base64"` in place of `datum`; where not even the
//! envelope can be read, `spool`, `sequence`, `fault` and `payload_base64`.

use std::collections::HashMap;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flywheel_schemas::avro::Layout;
use flywheel_schemas::datum;
use flywheel_spool::{Reader, Record, SchemaKey};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Damage, Spool, Visitor, time};
use crate::record::Envelope;

pub(super) struct Export {
    name: String,
    all: bool,
    sha256: HashMap<SchemaKey, String>,
    /// Or why there is none.
    layouts: HashMap<SchemaKey, Result<Layout, String>>,
}

impl Export {
    pub(super) fn new(spool: &Spool<'_>, all: bool) -> Export {
        let sha256 = spool.found.schemas.iter().map(|schema| (schema.key, schema.sha256.clone())).collect();
        Export { name: spool.name.clone(), all, sha256, layouts: HashMap::new() }
    }

    fn line(&mut self, record: &Record, reader: &Reader) -> Value {
        let Some(envelope) = Envelope::read(&record.payload) else {
            return json!({
                "spool": self.name, "sequence": record.sequence, "fault": "the payload is of no known form",
                "payload_base64": STANDARD.encode(&record.payload),
            });
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut line = json!({
            "spool": self.name,
            "sequence": record.sequence,
            "kind": envelope.kind.name(),
            "time": time(envelope.time_ms),
            "producer_id": Uuid::from_bytes(envelope.producer_id).to_string(),
            "producer_seq": envelope.producer_seq,
            "key": text(envelope.key),
            "event_id": text(envelope.event_id),
            "traceparent": envelope.traceparent.map(text),
            "schema_sha256": self.sha256.get(&record.schema),
        });
        if record.schema == SchemaKey::NONE {
            return line;
        }
        let layout = self.layouts.entry(record.schema).or_insert_with(|| {
            let text = reader.schema(record.schema).ok_or("the schema is missing or damaged")?;
            Layout::parse(&text).map_err(|error| error.to_string())
        });
        let shown = layout.as_ref().map_err(Clone::clone);
        match shown.and_then(|layout| datum::to_json(layout, envelope.datum).map_err(|error| error.to_string())) {
            Ok(datum) => line["datum"] = datum,
            Err(fault) => {
                line["fault"] = json!(fault);
                line["datum_base64"] = json!(STANDARD.encode(envelope.datum));
            }
        }
        line
    }
}

impl Visitor for Export {
    fn wants_forwarded(&self) -> bool {
        self.all
    }

    fn record(&mut self, record: &Record, reader: &Reader, out: &mut dyn Write) -> io::Result<()> {
        let line = self.line(record, reader);
        writeln!(out, "{line}")
    }

    fn end(&mut self, _spool: &Spool<'_>, _damage: Damage, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}
