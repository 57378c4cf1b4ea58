//! What of a producer's numbers never reaches the log, and why.
//!
//! A loss is found where the cursor passes it: records that are given up (`give_up`), and holes in the numbers of a producer
//! and kind, which damage in the spool leaves. It is named in the ledger before the cursor is persisted behind it, so a crash
//! names a loss that did not happen rather than leaving one without a name. As the cursor does not go back, losses of one
//! producer and kind are named in the order of their numbers, and [`Losses`] never names a number twice.
//!
//! Not found is the loss of the last records of a producer of which the ledger never said that they were accepted: a power
//! cut with `spool.accepted = "kernel"` leaves that.

use flywheel_schemas::wire::Kind;

use crate::record::{Envelope, Note, ProducerSeq, RecordKind};

/// Why a record that was accepted is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Given up for newer ones (`spool.when_full = "drop_oldest"`).
    SpoolFull,
    /// Given up for its age (`spool.max_age_s`).
    TooOld,
    /// Not readable any more.
    Damaged,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::SpoolFull => "spool_full",
            Reason::TooOld => "too_old",
            Reason::Damaged => "damaged",
        }
    }
}

/// Numbers of one producer and kind that are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    pub kind: Kind,
    pub producer_id: [u8; 16],
    pub first_seq: u64,
    pub last_seq: u64,
    /// How many of them: those in between that the log has acknowledged do not count.
    pub count: u64,
    pub reason: Reason,
}

/// The losses of one spool that are yet to be named.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    unnamed: Vec<Loss>,
    /// By kind: the last number that the ledger has as lost.
    named: Note,
    /// By kind: what the ledger says was accepted last before this process.
    ended: Note,
    /// The cursor file was damaged, so what went before it is not known.
    forgetful: bool,
}

impl Losses {
    pub fn new(named: Note, ended: Note, forgetful: bool) -> Losses {
        Losses { unnamed: Vec::new(), named, ended, forgetful }
    }

    pub fn unnamed(&self) -> &[Loss] {
        &self.unnamed
    }

    /// The first `count` are in the ledger.
    pub fn name(&mut self, count: usize) {
        for loss in self.unnamed.drain(..count.min(self.unnamed.len())) {
            self.named.set(loss.kind, ProducerSeq { producer_id: loss.producer_id, producer_seq: loss.last_seq });
        }
    }

    /// The cursor passes a record. What is missing since `before` is lost.
    pub fn pass(&mut self, before: &Note, record: &Envelope<'_>) {
        let Some(kind) = row_kind(record.kind) else { return };
        let (producer_id, seq) = (record.producer_id, record.producer_seq);
        let last = before.place(kind);
        if let Some(ended) = self.ended.place(kind).filter(|ended| ended.producer_id != producer_id) {
            // The predecessor's end, where it is this record that follows it.
            let reached = match last {
                Some(last) if last.producer_id == ended.producer_id => Some(last.producer_seq),
                None if !self.forgetful => Some(0),
                _ => None,
            };
            if let Some(reached) = reached {
                self.add(kind, ended.producer_id, reached + 1, ended.producer_seq, Reason::Damaged);
            }
        }
        match last {
            Some(last) if last.producer_id == producer_id => {
                self.add(kind, producer_id, last.producer_seq + 1, seq.saturating_sub(1), Reason::Damaged);
            }
            None if self.forgetful => {}
            _ => self.add(kind, producer_id, 1, seq.saturating_sub(1), Reason::Damaged),
        }
    }

    /// A record is given up.
    pub fn give_up(&mut self, record: &Envelope<'_>, reason: Reason) {
        if let Some(kind) = row_kind(record.kind) {
            self.add(kind, record.producer_id, record.producer_seq, record.producer_seq, reason);
        }
    }

    /// A record among those that are given up has arrived: the span goes on over it.
    pub fn step_over(&mut self, record: &Envelope<'_>) {
        let Some(kind) = row_kind(record.kind) else { return };
        if let Some(last) = self.unnamed.iter_mut().rfind(|loss| loss.kind == kind)
            && (last.producer_id, last.last_seq + 1) == (record.producer_id, record.producer_seq)
        {
            last.last_seq += 1;
        }
    }

    /// Adds what of a span is not named yet; an empty span is none.
    fn add(&mut self, kind: Kind, producer_id: [u8; 16], first_seq: u64, last_seq: u64, reason: Reason) {
        let named = self.named.place(kind).filter(|named| named.producer_id == producer_id);
        let first_seq = first_seq.max(named.map_or(0, |named| named.producer_seq + 1));
        if first_seq > last_seq {
            return;
        }
        let count = last_seq - first_seq + 1;
        if let Some(last) = self.unnamed.iter_mut().rfind(|loss| loss.kind == kind)
            && (last.producer_id, last.last_seq + 1, last.reason) == (producer_id, first_seq, reason)
        {
            last.last_seq = last_seq;
            last.count += count;
            return;
        }
        self.unnamed.push(Loss { kind, producer_id, first_seq, last_seq, count, reason });
    }
}

/// What has a number in the tables.
fn row_kind(kind: RecordKind) -> Option<Kind> {
    match kind {
        RecordKind::Prediction => Some(Kind::Predictions),
        RecordKind::Outcome => Some(Kind::Outcomes),
        RecordKind::Time | RecordKind::DeadLetter | RecordKind::Ledger | RecordKind::Gate => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 16] = [1; 16];
    const B: [u8; 16] = [2; 16];

    fn record(kind: RecordKind, producer_id: [u8; 16], producer_seq: u64) -> Envelope<'static> {
        let (key, event_id, datum) = (b"".as_slice(), b"".as_slice(), b"".as_slice());
        Envelope { kind, time_ms: 0, producer_id, producer_seq, key, event_id, traceparent: None, datum }
    }

    fn prediction(producer_id: [u8; 16], seq: u64) -> Envelope<'static> {
        record(RecordKind::Prediction, producer_id, seq)
    }

    /// Passes records as a window does; gives what was found, as producer, first and last.
    fn found(losses: &mut Losses, note: &mut Note, records: &[Envelope<'static>]) -> Vec<(u8, u64, u64)> {
        for record in records {
            losses.pass(note, record);
            note.pass(record);
        }
        assert!(losses.unnamed.iter().all(|loss| loss.count == loss.last_seq + 1 - loss.first_seq));
        losses.unnamed.iter().map(|loss| (loss.producer_id[0], loss.first_seq, loss.last_seq)).collect()
    }

    fn at(producer_id: [u8; 16], producer_seq: u64) -> Note {
        Note { predictions: Some(ProducerSeq { producer_id, producer_seq }), ..Note::default() }
    }

    #[test]
    fn holes_are_found_by_producer_and_kind() {
        let (mut losses, mut note) = (Losses::default(), at(A, 3));
        let records = [
            prediction(A, 4),
            record(RecordKind::Outcome, A, 2),
            record(RecordKind::Time, A, 0),
            prediction(A, 7),
            // Sent again after a failure.
            prediction(A, 5),
            record(RecordKind::Outcome, A, 3),
            prediction(B, 2),
        ];
        assert_eq!(found(&mut losses, &mut note, &records), [(1, 1, 1), (1, 5, 6), (2, 1, 1)]);
        assert_eq!(losses.unnamed[0].kind, Kind::Outcomes);
    }

    #[test]
    fn the_end_of_a_predecessor_is_missed_when_its_successor_comes() {
        let mut losses = Losses::new(Note::default(), at(A, 9), false);
        let mut note = at(A, 6);
        assert_eq!(found(&mut losses, &mut note, &[prediction(A, 7), prediction(B, 1)]), [(1, 8, 9)]);
        // All of it, where none of it was ever passed.
        let mut losses = Losses::new(Note::default(), at(A, 9), false);
        assert_eq!(found(&mut losses, &mut Note::default(), &[prediction(B, 1)]), [(1, 1, 9)]);
        // What the spool has beyond the ledger is none.
        let mut losses = Losses::new(Note::default(), at(A, 9), false);
        assert_eq!(found(&mut losses, &mut at(A, 11), &[prediction(B, 1)]), []);
    }

    #[test]
    fn where_the_cursor_was_damaged_the_first_record_proves_nothing() {
        let mut losses = Losses::new(Note::default(), at(A, 9), true);
        let mut note = Note::default();
        assert_eq!(found(&mut losses, &mut note, &[prediction(B, 5), prediction(B, 7)]), [(2, 6, 6)]);
    }

    #[test]
    fn what_is_named_is_not_named_again() {
        let mut losses = Losses::new(at(A, 5), Note::default(), false);
        let mut note = at(A, 3);
        assert_eq!(found(&mut losses, &mut note, &[prediction(A, 8)]), [(1, 6, 7)]);
        losses.name(1);
        assert_eq!(losses.unnamed(), []);
        assert_eq!(found(&mut losses, &mut at(A, 3), &[prediction(A, 8)]), [], "the cursor was not persisted");
        (6..=9).for_each(|seq| losses.give_up(&prediction(A, seq), Reason::SpoolFull));
        let named = |loss: &Loss| (loss.first_seq, loss.last_seq, loss.count);
        assert_eq!(losses.unnamed().iter().map(named).collect::<Vec<_>>(), [(8, 9, 2)]);
    }

    #[test]
    fn what_has_arrived_does_not_count_and_does_not_cut_the_span() {
        let mut losses = Losses::default();
        losses.step_over(&prediction(A, 1));
        for seq in 2..=6 {
            match seq {
                3 | 5 => losses.step_over(&prediction(A, seq)),
                _ => losses.give_up(&prediction(A, seq), Reason::TooOld),
            }
        }
        let reason = Reason::TooOld;
        let loss = Loss { kind: Kind::Predictions, producer_id: A, first_seq: 2, last_seq: 6, count: 3, reason };
        assert_eq!(losses.unnamed(), [loss]);
    }
}
