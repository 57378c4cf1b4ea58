//! What real sources do after the fact: of some flights the landing is stated again, corrected, taken back, or known days late.
//!
//! Which flights follows from their ids, so that every run of the same flights is the same.

use chrono::Duration;
use hyper::body::Bytes;
use serde_json::json;

use crate::flights::{Flight, derive};

/// What becomes of the statement of a landing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is stated once, when it happened.
    Plain,
    /// It is sent again a minute later, as a client does that got no answer.
    Resent,
    /// It turns out that the flight was 20 minutes later than first stated: after an hour, or after two days.
    Corrected { late: bool },
    /// It is taken back: after two hours, or after three days.
    Retracted { late: bool },
    /// Nobody says so until five days later.
    Late,
}

impl Course {
    /// About a tenth of the flights are not plain.
    pub fn of(flight: &Flight) -> Course {
        match flight.event_id().map(|id| id.as_bytes()[15]) {
            Some(0..=6) => Course::Resent,
            Some(byte @ 7..=13) => Course::Corrected { late: byte > 10 },
            Some(byte @ 14..=17) => Course::Retracted { late: byte > 15 },
            Some(18..=24) => Course::Late,
            _ => Course::Plain,
        }
    }

    /// How long after the landing it is stated first, and how long after it something follows.
    pub fn delays(self) -> (Duration, Option<Duration>) {
        let none = Duration::zero();
        match self {
            Course::Plain => (none, None),
            Course::Resent => (none, Some(Duration::minutes(1))),
            Course::Corrected { late } => (none, Some(if late { Duration::days(2) } else { Duration::hours(1) })),
            Course::Retracted { late } => (none, Some(if late { Duration::days(3) } else { Duration::hours(2) })),
            Course::Late => (Duration::days(5), None),
        }
    }

    /// What follows, where it is not the same once more.
    pub fn correction(self, flight: &Flight) -> Option<Bytes> {
        let landed_at = flight.landed_at?;
        let event_id = derive(landed_at.timestamp_millis(), &flight.flight_key, "correction");
        let mut body = json!({
            "prediction_id": flight.prediction_id(),
            "event_id": event_id,
            "event_time": landed_at,
            "revision": 1,
        });
        match self {
            Course::Corrected { .. } => {
                let mut labels = json!({"landed": true});
                if let Some(delay_min) = flight.arr_delay_min {
                    labels["arr_delay_min"] = json!(f64::from(delay_min + 20));
                    labels["late15"] = json!(delay_min + 20 > 15);
                }
                body["labels"] = labels;
            }
            Course::Retracted { .. } => body["op"] = json!("retract"),
            Course::Plain | Course::Resent | Course::Late => return None,
        }
        Some(Bytes::from(body.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flights;

    #[test]
    fn a_tenth_of_the_landings_is_not_plain() {
        let flights = flights::read(None).unwrap();
        let count = |course| flights.iter().filter(|flight| Course::of(flight) == course).count();
        assert!((69_000..72_000).contains(&count(Course::Plain)));
        let corrected = [false, true].map(|late| Course::Corrected { late });
        let retracted = [false, true].map(|late| Course::Retracted { late });
        for course in [Course::Resent, Course::Late].into_iter().chain(corrected).chain(retracted) {
            assert!((500..2_500).contains(&count(course)), "{course:?}: {}", count(course));
        }
    }
}
