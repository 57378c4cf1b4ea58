//! The proof that nothing is missing: what the ledger says was accepted, against what the raw tables hold.
//!
//! Each start of a sidecar numbers the rows that it accepts from 1, for each model and kind. The ledger has the last number
//! of each; so the numbers that a raw table lacks, and that no loss in the ledger accounts for, are missing: still on their
//! way, or lost. Rows of producers that do not number them prove nothing and are counted apart.
//!
//! Costs a scan of two columns of the raw table, and about a bit of memory per row.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use flywheel_schemas::table;
use flywheel_schemas::wire::Kind;
use futures::TryStreamExt as _;
use roaring::RoaringTreemap;

use crate::table::{Predicate, TableError, Warehouse};

/// `closed_by` of a record that names a loss, and of those after which nothing more comes from a producer.
const LOSS: &str = "loss";
const CLOSING: [&str; 2] = ["shutdown", "recovery"];

/// One kind of row of one model, by producer.
#[derive(Debug, Default)]
pub struct Proof {
    pub producers: BTreeMap<String, Producer>,
    /// Rows without a producer_id or producer_seq.
    pub unnumbered: u64,
}

/// What one start of a sidecar accepted, and what of it is in the table.
#[derive(Debug, Default)]
pub struct Producer {
    /// The greatest number that the ledger has.
    pub accepted: u64,
    /// The ledger says that nothing more comes.
    pub is_closed: bool,
    pub refused: u64,
    pub sampled_out: u64,
    pub losses: Vec<Loss>,
    landed: RoaringTreemap,
}

/// Rows that a sidecar gave up, or could not read any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    pub span: Span,
    pub reason: String,
}

/// Numbers from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    /// How many numbers.
    pub fn count(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl Producer {
    /// The last number that is known of.
    fn given(&self) -> u64 {
        self.accepted.max(self.landed.max().unwrap_or_default())
    }

    /// Different numbers in the raw table.
    pub fn landed(&self) -> u64 {
        self.landed.len()
    }

    /// Numbers that are in no table and that a loss accounts for. One that was given up may have arrived all the same.
    pub fn lost(&self) -> u64 {
        (self.in_losses() - &self.landed).len()
    }

    /// Numbers that are in no table, and that nothing accounts for.
    pub fn missing(&self) -> Vec<Span> {
        let given = self.given();
        let mut missing = RoaringTreemap::new();
        if given > 0 {
            missing.insert_range(1..=given);
        }
        spans(&(missing - &self.landed - self.in_losses()))
    }

    fn in_losses(&self) -> RoaringTreemap {
        let mut numbers = RoaringTreemap::new();
        for Loss { span, .. } in &self.losses {
            if span.first <= span.last {
                numbers.insert_range(span.first..=span.last);
            }
        }
        numbers
    }
}

fn spans(numbers: &RoaringTreemap) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some(span) if span.last + 1 == number => span.last = number,
            _ => spans.push(Span { first: number, last: number }),
        }
    }
    spans
}

impl Proof {
    /// Reads the ledger first: what lands meanwhile only adds to what is there.
    ///
    /// # Errors
    /// Of the catalog or the store. Without the tables nothing was accepted and nothing has landed.
    pub async fn read(warehouse: &Warehouse, model: &str, kind: Kind) -> Result<Proof, TableError> {
        let mut proof = Proof::default();
        if let Some(ledger) = warehouse.load(&table::ledger().name).await? {
            let mut columns = vec![
                "producer_id",
                "model",
                "kind",
                "first_seq",
                "last_seq",
                "refused",
                "sampled_out",
                "closed_by",
                "at",
            ];
            // A ledger from before there were losses has no column for their reasons.
            columns.extend(ledger.arrow_schema().field_with_name("reason").ok().map(|_| "reason"));
            let batches: Vec<RecordBatch> = ledger.scan(&columns, Predicate::All).await?.try_collect().await?;
            let records = batches.iter().flat_map(|batch| records(batch, model, kind));
            // A record may be there twice, and its copies are alike.
            let distinct: BTreeSet<Entry> = records.collect();
            distinct.into_iter().for_each(|record| proof.enter(record));
        }
        let Some(raw) = warehouse.load(&format!("{model}_{}", kind.name())).await? else { return Ok(proof) };
        let mut batches = raw.scan(&["producer_id", "producer_seq"], Predicate::All).await?;
        while let Some(batch) = batches.try_next().await? {
            proof.land(&batch);
        }
        Ok(proof)
    }

    fn enter(&mut self, entry: Entry) {
        let producer = self.producers.entry(entry.producer_id).or_default();
        if entry.closed_by == LOSS {
            producer.losses.push(Loss { span: entry.span, reason: entry.reason });
            return;
        }
        producer.accepted = producer.accepted.max(entry.span.last);
        producer.is_closed |= CLOSING.contains(&entry.closed_by.as_str());
        producer.refused += entry.refused;
        producer.sampled_out += entry.sampled_out;
    }

    fn land(&mut self, batch: &RecordBatch) {
        let (ids, numbers) = (texts(batch, "producer_id"), longs(batch, "producer_seq"));
        let (Some(ids), Some(numbers)) = (ids, numbers) else { return };
        for row in 0..batch.num_rows() {
            let number = u64::try_from(numbers.value(row)).unwrap_or_default();
            if ids.is_null(row) || numbers.is_null(row) || number == 0 {
                self.unnumbered += 1;
                continue;
            }
            // One start's rows mostly follow one another, and its name need not be copied for each.
            let id = ids.value(row);
            match self.producers.get_mut(id) {
                Some(producer) => producer.landed.insert(number),
                None => self.producers.entry(id.to_owned()).or_default().landed.insert(number),
            };
        }
    }

    pub fn is_complete(&self) -> bool {
        self.producers.values().all(|producer| producer.missing().is_empty())
    }
}

/// A record of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    producer_id: String,
    span: Span,
    closed_by: String,
    at: i64,
    refused: u64,
    sampled_out: u64,
    reason: String,
}

/// The records of one model and kind.
fn records(batch: &RecordBatch, model: &str, kind: Kind) -> Vec<Entry> {
    let text = |name, row| texts(batch, name).map(|column| column.value(row)).unwrap_or_default();
    let long =
        |name, row| longs(batch, name).and_then(|column| u64::try_from(column.value(row)).ok()).unwrap_or_default();
    let at = batch.column_by_name("at").and_then(|column| column.as_any().downcast_ref::<TimestampMicrosecondArray>());
    (0..batch.num_rows())
        .filter(|row| text("model", *row) == model && text("kind", *row) == kind.name())
        .map(|row| Entry {
            producer_id: text("producer_id", row).to_owned(),
            span: Span { first: long("first_seq", row), last: long("last_seq", row) },
            closed_by: text("closed_by", row).to_owned(),
            at: at.map(|column| column.value(row)).unwrap_or_default(),
            refused: long("refused", row),
            sampled_out: long("sampled_out", row),
            reason: text("reason", row).to_owned(),
        })
        .collect()
}

fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    batch.column_by_name(name)?.as_any().downcast_ref()
}

fn longs<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a Int64Array> {
    batch.column_by_name(name)?.as_any().downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(closed_by: &str, first: u64, last: u64) -> Entry {
        Entry {
            producer_id: "p".to_owned(),
            span: Span { first, last },
            closed_by: closed_by.to_owned(),
            at: 0,
            refused: 1,
            sampled_out: 0,
            reason: if closed_by == LOSS { "too_old".to_owned() } else { String::new() },
        }
    }

    #[test]
    fn what_neither_landed_nor_was_given_up_is_missing() {
        let mut proof = Proof::default();
        proof.enter(entry("interval", 1, 10));
        proof.enter(entry("recovery", 11, 20));
        proof.enter(entry(LOSS, 3, 6));
        let producer = proof.producers.get_mut("p").unwrap();
        // 4 was given up and arrived all the same.
        producer.landed.extend([1, 2, 4, 7, 8, 10, 11, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!((producer.accepted, producer.is_closed, producer.refused), (20, true, 2));
        assert_eq!((producer.landed(), producer.lost()), (14, 3));
        let span = |first, last| Span { first, last };
        assert_eq!(producer.missing(), [span(9, 9), span(12, 12), span(20, 20)]);
        assert!(!proof.is_complete());
    }

    #[test]
    fn rows_that_the_ledger_does_not_have_yet_are_known_by_those_after_them() {
        let mut proof = Proof::default();
        proof.producers.entry("p".to_owned()).or_default().landed.extend([1, 2, 5]);
        assert_eq!(proof.producers["p"].missing(), [Span { first: 3, last: 4 }]);
        assert_eq!(proof.producers["p"].accepted, 0);
    }
}
