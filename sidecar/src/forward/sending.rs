//! The sending of one record: to its topic, to every partition, or to the dead letters.

use flywheel_schemas::wire;
use flywheel_spool::Record;
use tokio::time::Instant;

use super::destination::{Message, Place, SendError};
use super::headers::{Header, TICK};
use super::policy::{self, Action};
use super::watcher::Undeliverable;
use super::{Forwarder, Opened};
use crate::record::{Envelope, RecordKind};

/// How an attempt to send ended.
pub(super) enum Sent {
    Whole,
    /// The rest of it, or it itself, has to wait.
    NotNow,
}

impl Forwarder {
    pub(super) async fn send(&mut self, record: &Record) -> Sent {
        let Some(envelope) = Envelope::read(&record.payload) else {
            return self.give_up(record, None, "unreadable", "the payload is of no known form".to_string()).await;
        };
        match envelope.kind {
            RecordKind::Time => {
                return self
                    .send_to_all(record, &envelope, &[RecordKind::Prediction, RecordKind::Outcome], &TICK)
                    .await;
            }
            RecordKind::Gate => {
                let headers = [(wire::GATE, Some(envelope.datum))];
                return self.send_to_all(record, &envelope, &[RecordKind::Outcome], &headers).await;
            }
            _ => {}
        }
        let Some(target) = self.topics.target(envelope.kind).cloned() else {
            let detail = format!("{:?} records have no topic here", envelope.kind);
            return self.give_up(record, Some(&envelope), "misplaced", detail).await;
        };
        if let Err(failure) = self.lane.partitions(&target.topic, target.single).await {
            return self.hold(failure);
        }
        let id = match self.ids.known(envelope.kind, record.schema) {
            Some(id) => id,
            None => {
                let Some(text) = self.spool.schema(record.schema) else {
                    let detail = format!("the spool has no schema {:?}", record.schema);
                    return self.give_up(record, Some(&envelope), "schema_lost", detail).await;
                };
                match self.ids.find(envelope.kind, record.schema, &target.subject, &text).await {
                    Ok(id) => id,
                    Err(error) => {
                        let (cause, alarm) = error.cause();
                        self.wait_for(cause, error.to_string(), alarm);
                        if let Some(asked) = error.retry_after() {
                            self.resume_at = Some(Instant::now() + self.back_off.wait_as_asked(asked));
                        }
                        return Sent::NotNow;
                    }
                }
            }
        };
        self.value.clear();
        self.value.extend_from_slice(&wire::frame(id));
        self.value.extend_from_slice(envelope.datum);
        let opened = self.open(record, &envelope);
        let headers = self.texts.headers(&envelope, self.topics.source(), &target);
        let message = Message {
            topic: &target.topic,
            place: Place::Key,
            time_ms: envelope.time_ms,
            key: (!envelope.key.is_empty()).then_some(envelope.key),
            value: Some(&self.value),
            headers: &headers,
        };
        match self.lane.send(opened.token, &message) {
            Ok(()) => {
                self.window.sent(opened.token);
                self.window.close(opened.token);
                Sent::Whole
            }
            Err(SendError::Full) => self.hold_full(),
            Err(SendError::Failed(failure)) => match policy::action(failure.kind, true) {
                Action::DeadLetter => self.give_up(record, Some(&envelope), "too_large", failure.cause).await,
                _ => {
                    self.act(failure, false).await;
                    Sent::NotNow
                }
            },
        }
    }

    /// One record without key and value to each partition of the topics of these kinds.
    async fn send_to_all(
        &mut self,
        record: &Record,
        envelope: &Envelope<'_>,
        kinds: &[RecordKind],
        headers: &[Header<'_>],
    ) -> Sent {
        let mut places = Vec::new();
        let targets: Vec<_> = kinds.iter().filter_map(|kind| self.topics.target(*kind).cloned()).collect();
        for target in targets {
            match self.lane.partitions(&target.topic, target.single).await {
                Ok(count) => places.extend((0..count).map(|partition| (target.topic.clone(), partition))),
                Err(failure) => return self.hold(failure),
            }
        }
        let opened = self.open(record, envelope);
        for (topic, partition) in places.iter().skip(opened.copies as usize) {
            let message = Message {
                topic,
                place: Place::Partition(*partition),
                time_ms: envelope.time_ms,
                key: None,
                value: None,
                headers,
            };
            match self.lane.send(opened.token, &message) {
                Ok(()) => {
                    self.window.sent(opened.token);
                    if let Some(opened) = &mut self.opened {
                        opened.copies += 1;
                    }
                }
                Err(SendError::Full) => return self.hold_full(),
                Err(SendError::Failed(failure)) => {
                    self.act(failure, false).await;
                    return Sent::NotNow;
                }
            }
        }
        self.window.close(opened.token);
        Sent::Whole
    }

    fn open(&mut self, record: &Record, envelope: &Envelope<'_>) -> Opened {
        let (window, bytes, alone) = (&mut self.window, record.payload.len(), record.sequence < self.alone_until);
        let open = || Opened { token: window.open(record.sequence, bytes, Some(envelope), alone), copies: 0 };
        *self.opened.get_or_insert_with(open)
    }

    /// Hands a record to the dead letters; the cursor passes it when it is taken there.
    async fn give_up(
        &mut self,
        record: &Record,
        envelope: Option<&Envelope<'_>>,
        reason: &'static str,
        detail: String,
    ) -> Sent {
        let letter = Undeliverable {
            sequence: record.sequence,
            envelope: envelope.cloned(),
            payload: &record.payload,
            reason,
            detail,
        };
        if !self.watcher.dead_letter(letter).await {
            self.wait_for("dead_letter", format!("{reason}: the dead letters take nothing at present"), true);
            return Sent::NotNow;
        }
        let token = match self.opened {
            Some(opened) => opened.token,
            None => self.window.open(record.sequence, record.payload.len(), envelope, true),
        };
        self.window.give_up(token);
        Sent::Whole
    }
}
