//! What is on its way: the records that were sent and not yet all delivered, in the order of the spool.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::record::{Envelope, Note};

/// Records on their way at most: enough for a fast broker's round trips, and few to send again after a failure.
const RECORDS_MAX: usize = 10_000;
/// Their bytes at most, so that a model whose broker stands still takes little of the producer's queue.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// One record.
struct Slot {
    sequence: u64,
    bytes: usize,
    /// Copies that were sent and not delivered yet (a time record goes to many partitions).
    flying: u32,
    /// Whether all of its copies were sent.
    whole: bool,
    failed: bool,
    /// It cannot be sent, nor kept as a dead letter.
    lost: bool,
    /// Nothing else was on its way with it, so that what is said about it is about it alone.
    alone: bool,
    /// What the note needs of it.
    head: Option<Envelope<'static>>,
}

impl Slot {
    /// Whether the cursor may pass it.
    fn is_through(&self) -> bool {
        self.whole && self.flying == 0 && !self.failed
    }
}

/// The records on their way. A record's token numbers it among those of this window.
pub struct Window {
    slots: VecDeque<Slot>,
    /// The token of the first slot.
    first: u64,
    /// Given up while copies were on their way, by token. They take room until their reports come: the log may take them
    /// still, and would be sent another window's worth with each portion that is given up.
    late: HashMap<u64, Slot>,
    bytes: usize,
    flying: u64,
    /// The next record to deliver: everything below is delivered, or a dead letter.
    cursor: u64,
    note: Note,
}

impl Window {
    pub fn new(cursor: u64, note: Note) -> Window {
        Window { slots: VecDeque::new(), first: 0, late: HashMap::new(), bytes: 0, flying: 0, cursor, note }
    }

    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    pub fn note(&self) -> &Note {
        &self.note
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.late.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.slots.len() + self.late.len() < RECORDS_MAX && self.bytes < BYTES_MAX
    }

    /// Copies in flight.
    pub fn flying(&self) -> u64 {
        self.flying
    }

    /// The sequence after the last record sent, as far as one is on its way.
    pub fn end(&self) -> u64 {
        self.slots.back().map_or(self.cursor, |slot| slot.sequence + 1)
    }

    /// A record is about to be sent, and nothing else until it is through where it is `alone`; gives its token.
    pub fn open(&mut self, sequence: u64, bytes: usize, envelope: Option<&Envelope<'_>>, alone: bool) -> u64 {
        let head = envelope.map(|envelope| Envelope {
            kind: envelope.kind,
            time_ms: envelope.time_ms,
            producer_id: envelope.producer_id,
            producer_seq: envelope.producer_seq,
            key: b"",
            event_id: b"",
            traceparent: None,
            datum: b"",
        });
        self.slots.push_back(Slot {
            sequence,
            bytes,
            flying: 0,
            whole: false,
            failed: false,
            lost: false,
            alone,
            head,
        });
        self.bytes += bytes;
        self.first + self.slots.len() as u64 - 1
    }

    fn slot(&mut self, token: u64) -> Option<&mut Slot> {
        let index = token.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    /// A copy of the record was handed to the log.
    pub fn sent(&mut self, token: u64) {
        if let Some(slot) = self.slot(token) {
            slot.flying += 1;
            self.flying += 1;
        }
    }

    /// All copies of the record were handed over, or it is none to be sent.
    pub fn close(&mut self, token: u64) {
        if let Some(slot) = self.slot(token) {
            slot.whole = true;
        }
    }

    /// A copy came through, or failed.
    pub fn landed(&mut self, token: u64, delivered: bool) {
        if let Some(slot) = self.late.get_mut(&token) {
            slot.flying = slot.flying.saturating_sub(1);
            self.flying -= 1;
            if slot.flying == 0 {
                self.bytes -= slot.bytes;
                self.late.remove(&token);
            }
            return;
        }
        if let Some(slot) = self.slot(token)
            && slot.flying > 0
        {
            slot.flying -= 1;
            slot.failed |= !delivered;
            self.flying -= 1;
        }
    }

    /// The record will never be sent: what failed of it counts no more.
    pub fn give_up(&mut self, token: u64) {
        if let Some(slot) = self.slot(token) {
            slot.failed = false;
            slot.whole = true;
        }
    }

    /// The record can never be sent, and is not kept elsewhere.
    pub fn lose(&mut self, token: u64) {
        self.give_up(token);
        if let Some(slot) = self.slot(token) {
            slot.lost = true;
        }
    }

    /// The sequence of a record on its way.
    pub fn sequence(&mut self, token: u64) -> Option<u64> {
        self.slot(token).map(|slot| slot.sequence)
    }

    /// Whether the record was sent alone.
    pub fn is_alone(&mut self, token: u64) -> bool {
        self.slot(token).is_some_and(|slot| slot.alone)
    }

    /// Takes out the next record that is wholly delivered, in order; the cursor moves behind it.
    pub fn advance(&mut self) -> Option<Passed> {
        let slot = self.slots.front().filter(|slot| slot.is_through())?;
        let passed = Passed { bytes: slot.bytes, head: slot.head.clone(), before: self.note, lost: slot.lost };
        self.cursor = slot.sequence + 1;
        self.bytes -= slot.bytes;
        self.slots.pop_front();
        self.first += 1;
        if let Some(head) = &passed.head {
            self.note.pass(head);
        }
        Some(passed)
    }

    /// The records that are through although one before them is not.
    pub fn arrived(&self) -> BTreeSet<u64> {
        self.slots.iter().filter(|slot| slot.is_through() && !slot.lost).map(|slot| slot.sequence).collect()
    }

    /// Moves the cursor to `sequence`, past records that are given up; `note` is about all before it.
    pub fn skip_to(&mut self, sequence: u64, note: Note) {
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.sequence < sequence) {
            if slot.flying > 0 {
                self.late.insert(self.first, slot);
            } else {
                self.bytes -= slot.bytes;
            }
            self.first += 1;
        }
        self.cursor = sequence;
        self.note = note;
    }

    /// Forgets all that is on its way; the cursor stays. Reports that still come are of no token known.
    pub fn rewind(&mut self) {
        self.first += self.slots.len() as u64;
        self.slots.clear();
        self.late.clear();
        self.bytes = 0;
        self.flying = 0;
    }
}

/// A record that is through.
pub struct Passed {
    pub bytes: usize,
    pub head: Option<Envelope<'static>>,
    /// The note as it was before it.
    pub before: Note,
    /// It is neither in the log nor a dead letter.
    pub lost: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordKind;

    fn envelope(producer_seq: u64) -> Envelope<'static> {
        Envelope {
            kind: RecordKind::Prediction,
            time_ms: 5,
            producer_id: [7; 16],
            producer_seq,
            key: b"",
            event_id: b"",
            traceparent: None,
            datum: b"",
        }
    }

    fn send(window: &mut Window, sequence: u64, copies: u32) -> u64 {
        let token = window.open(sequence, 10, Some(&envelope(sequence)), false);
        (0..copies).for_each(|_| window.sent(token));
        window.close(token);
        token
    }

    #[test]
    fn the_cursor_moves_in_order_and_only_behind_what_is_delivered() {
        let mut window = Window::new(3, Note::default());
        let [a, b, c] = [send(&mut window, 3, 1), send(&mut window, 4, 2), send(&mut window, 9, 1)];
        window.landed(c, true);
        window.landed(b, true);
        assert!(window.advance().is_none());
        window.landed(a, true);
        assert!(window.advance().is_some());
        assert_eq!(window.cursor(), 4);
        assert!(window.advance().is_none(), "one of two copies is still on its way");
        window.landed(b, true);
        while window.advance().is_some() {}
        assert_eq!((window.cursor(), window.is_empty(), window.flying()), (10, true, 0));
        assert_eq!(window.note().predictions.map(|place| place.producer_seq), Some(9));
    }

    #[test]
    fn a_failed_record_holds_the_cursor_until_it_is_sent_again_or_given_up() {
        let mut window = Window::new(0, Note::default());
        let [a, b] = [send(&mut window, 0, 1), send(&mut window, 1, 1)];
        window.landed(a, false);
        window.landed(b, true);
        assert!(window.advance().is_none());
        window.rewind();
        assert_eq!((window.cursor(), window.end()), (0, 0));
        window.landed(a, true);
        assert!(window.advance().is_none(), "a report of before the rewind says nothing");
        let c = send(&mut window, 0, 1);
        window.landed(c, false);
        window.give_up(c);
        assert!(window.advance().is_some());
        assert_eq!(window.cursor(), 1);
    }

    #[test]
    fn what_is_given_up_takes_room_until_it_is_reported_and_moves_the_cursor_no_more() {
        let mut window = Window::new(0, Note::default());
        let [a, b, c, d] = [0, 1, 2, 3].map(|sequence| send(&mut window, sequence, 1));
        window.landed(b, true);
        assert_eq!(window.arrived(), BTreeSet::from([1]));
        window.landed(d, true);
        window.skip_to(3, Note::default());
        assert_eq!((window.cursor(), window.bytes, window.flying(), window.is_empty()), (3, 30, 2, false));
        assert!(window.advance().is_some(), "what comes after is held up by none of it");
        assert_eq!((window.cursor(), window.end(), window.sequence(c)), (4, 4, None));
        window.landed(a, false);
        window.landed(a, false);
        assert_eq!((window.bytes, window.flying()), (10, 1));
        window.landed(c, true);
        assert_eq!((window.bytes, window.flying(), window.is_empty(), window.cursor()), (0, 0, true, 4));
        // One of which a part is yet to be sent: its token is of nothing any more.
        let token = window.open(4, 10, None, false);
        window.sent(token);
        window.skip_to(5, Note::default());
        window.sent(token);
        window.landed(token, true);
        assert_eq!((window.bytes, window.flying(), window.cursor()), (0, 0, 5));
    }
}
