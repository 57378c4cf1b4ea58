//! `spool inspect`: what is in one spool, as text.

use std::collections::BTreeMap;
use std::io::{self, Write};

use flywheel_spool::{Reader, Record, SchemaKey};
use uuid::Uuid;

use super::{Damage, Spool, Visitor, time};
use crate::record::Envelope;

/// The numbers of one producer and kind.
struct Numbers {
    first: u64,
    last: u64,
    count: u64,
}

/// What was met.
#[derive(Default)]
pub(super) struct Report {
    records: u64,
    payload_bytes: u64,
    /// Of no known form.
    unreadable: u64,
    sequences: Option<(u64, u64)>,
    times: Option<(i64, i64)>,
    /// From here on they are not forwarded.
    cursor: u64,
    /// By kind.
    waiting: BTreeMap<&'static str, u64>,
    producers: BTreeMap<([u8; 16], &'static str), Numbers>,
    by_schema: BTreeMap<SchemaKey, u64>,
}

impl Report {
    pub(super) fn new(spool: &Spool<'_>) -> Report {
        Report { cursor: spool.found.cursor.as_ref().map_or(0, |cursor| cursor.sequence), ..Report::default() }
    }
}

impl Visitor for Report {
    fn wants_forwarded(&self) -> bool {
        true
    }

    fn record(&mut self, record: &Record, _reader: &Reader, _out: &mut dyn Write) -> io::Result<()> {
        self.records += 1;
        self.payload_bytes += record.payload.len() as u64;
        let (first, _) = self.sequences.unwrap_or((record.sequence, record.sequence));
        self.sequences = Some((first, record.sequence));
        *self.by_schema.entry(record.schema).or_default() += 1;
        let envelope = Envelope::read(&record.payload);
        if record.sequence >= self.cursor {
            let kind = envelope.as_ref().map_or("unreadable", |envelope| envelope.kind.name());
            *self.waiting.entry(kind).or_default() += 1;
        }
        let Some(envelope) = envelope else {
            self.unreadable += 1;
            return Ok(());
        };
        let (oldest, newest) = self.times.unwrap_or((envelope.time_ms, envelope.time_ms));
        self.times = Some((oldest.min(envelope.time_ms), newest.max(envelope.time_ms)));
        if envelope.producer_seq > 0 {
            let seq = envelope.producer_seq;
            let numbers = self.producers.entry((envelope.producer_id, envelope.kind.name())).or_insert(Numbers {
                first: seq,
                last: seq,
                count: 0,
            });
            numbers.first = numbers.first.min(seq);
            numbers.last = numbers.last.max(seq);
            numbers.count += 1;
        }
        Ok(())
    }

    fn end(&mut self, spool: &Spool<'_>, damage: Damage, out: &mut dyn Write) -> io::Result<()> {
        let found = spool.found;
        writeln!(out, "{}", spool.dir.display())?;
        writeln!(out, "  segments        {} of {} bytes", found.segments, found.bytes)?;
        write!(out, "  records         {} of {} bytes", self.records, self.payload_bytes)?;
        if let Some((first, last)) = self.sequences {
            write!(out, ", sequences {first} to {last}")?;
        }
        writeln!(out)?;
        if let Some((oldest, newest)) = self.times {
            writeln!(out, "  received        {} to {}", time(oldest), time(newest))?;
        }
        let note = if found.cursor_damaged { " (damaged: all counts as not forwarded)" } else { "" };
        writeln!(out, "  cursor          {}{note}", self.cursor)?;
        let total: u64 = self.waiting.values().sum();
        write!(out, "  not forwarded   {total}")?;
        for (at, (kind, count)) in self.waiting.iter().enumerate() {
            write!(out, "{} {count} {kind}", if at == 0 { ":" } else { "," })?;
        }
        writeln!(out)?;
        for ((producer_id, kind), Numbers { first, last, count }) in &self.producers {
            let producer_id = Uuid::from_bytes(*producer_id);
            let missing = (last + 1 - first).saturating_sub(*count);
            writeln!(
                out,
                "  producer        {producer_id} {kind} {first} to {last}, {count} there, {missing} missing"
            )?;
        }
        for schema in &found.schemas {
            let used = self.by_schema.get(&schema.key).copied().unwrap_or_default();
            let (key, sha256) = (schema.key.0, &schema.sha256);
            match &schema.text {
                Some(text) => {
                    writeln!(out, "  schema          {key} {sha256} of {} bytes, {used} records", text.len())?
                }
                None => writeln!(out, "  schema          {key} {sha256} damaged, {used} records")?,
            }
        }
        writeln!(
            out,
            "  damage          {} spans of {} bytes, {} unreadable records, {} copies kept under corrupt/",
            damage.spans, damage.bytes, self.unreadable, found.kept_aside
        )
    }
}
