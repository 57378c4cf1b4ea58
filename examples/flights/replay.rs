//! The replay: what happened when, sent at the instant it happened.
//!
//! All events of one instant are sent at once and all their answers awaited before the next instant: the log's time is
//! the replay's, and runs can be compared. At each week's end W the clock moves to W and stands still until the
//! training table is complete through W. Then
//!
//! 1. the candidate, trained a week ago, is **judged**: if its log loss on the week's flights (`W − 7 d < as_of ≤ W`,
//!    which it has not seen) is lower than that of the serving model on the same flights, it serves from now on;
//! 2. a new candidate is **trained** from every flight with `as_of ≤ W`.
//!
//! So a version `week-03` is trained at the end of week 3, judged at the end of week 4 and, if promoted, serves from
//! week 5. At the end the clock moves past the last flight's tick.

use std::time::Instant;

use chrono::{DateTime, Duration, NaiveTime, Utc};
use flywheel_schemas::contract::Contract;
use futures::future::try_join_all;
use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use crate::args::Args;
use crate::client::{Client, Route};
use crate::corrections::Course;
use crate::flights::{self, Flight};
use crate::journal::{Journal, Version};
use crate::model::{Example, Features, Model};
use crate::quality::Quality;
use crate::system;
use crate::training::{Row, Tables};
use crate::{CONTRACT, Error, report};

/// Runs the demonstration from where it is to its end.
pub async fn run(args: Args) -> Result<(), Error> {
    let started = Instant::now();
    let flights = flights::read(args.flights.as_deref())?;
    let mut journal = Journal::open(&args, &flights)?;
    let tables = Tables::open(&system::catalog(&args)).await?;
    if journal.state.finished {
        println!("{} holds a finished run; --fresh starts afresh. What it came to:", args.data_dir.display());
        return report::print(&args, &tables, None).await;
    }
    if journal.position_ms() > i64::MIN {
        println!("going on after {}", instant(journal.position_ms()));
    }
    let mut services = system::start(&args).await?;
    let client = Client::new(&services.url);
    let corrections = args.corrections;
    let mut replay = Replay { flights: &flights, corrections, client: &client, tables: &tables, journal: &mut journal };
    let result = tokio::select! {
        result = replay.drive() => result.map(|()| true),
        error = services.failed() => Err(error),
        _ = tokio::signal::ctrl_c() => Ok(false),
    };
    // Whatever it was, what was accepted goes to the log and what is in the log may go on to the tables.
    let finished = match result {
        Ok(finished) => finished,
        Err(error) => {
            let _ = services.sidecar.stop().await;
            let _ = services.joiner.stop().await;
            return Err(error);
        }
    };
    services.sidecar.stop().await?;
    if !finished {
        services.joiner.stop().await?;
        println!("stopped; the same command goes on from there, and --fresh starts afresh");
        return Ok(());
    }
    report::await_ledger(&tables).await?;
    services.joiner.stop().await?;
    journal.state.finished = true;
    journal.save()?;
    let calls = report::Calls { elapsed: started.elapsed(), repeats: client.repeats(), put_off: client.put_off() };
    report::print(&args, &tables, Some(calls)).await
}

struct Replay<'a> {
    flights: &'a [Flight],
    /// Whether landings take their courses, else all are plain.
    corrections: bool,
    client: &'a Client,
    tables: &'a Tables,
    journal: &'a mut Journal,
}

/// One of them, by its place among the flights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Departure(usize),
    Landing(usize),
    /// What follows a landing.
    Correction(usize),
}

impl Replay<'_> {
    async fn drive(&mut self) -> Result<(), Error> {
        let events = events(self.flights, self.corrections);
        let first =
            self.flights[0].departed_at.with_time(NaiveTime::MIN).single().unwrap_or(self.flights[0].departed_at);
        for same in events.chunk_by(|a, b| a.0 == b.0) {
            let at_ms = same[0].0;
            if at_ms <= self.journal.position_ms() {
                continue;
            }
            loop {
                let over =
                    first + Duration::days(7) * (i32::try_from(self.journal.state.weeks).unwrap_or(i32::MAX) + 1);
                if at_ms < over.timestamp_millis() {
                    break;
                }
                self.end_week(over).await?;
            }
            try_join_all(same.iter().map(|(_, event)| self.send(at_ms, *event))).await?;
            self.journal.pass(at_ms)?;
            if at_ms == events[0].0 {
                println!("first departure at {}", instant(at_ms));
            }
        }
        let last_ms = events.last().map(|event| event.0).unwrap_or_default();
        let (due_ms, end_ms) = end(self.flights, last_ms)?;
        self.client.post(Route::Time, end_ms, Bytes::new()).await?;
        self.tables.wait_through(due_ms).await
    }

    async fn send(&self, at_ms: i64, event: Event) -> Result<(), Error> {
        match event {
            Event::Departure(index) => {
                let body = prediction(&self.flights[index], &self.journal.state.current);
                self.client.post(Route::Predictions, at_ms, body).await
            }
            Event::Landing(index) => match outcome(&self.flights[index]) {
                Some(body) => self.client.post(Route::Outcomes, at_ms, body).await,
                None => Ok(()),
            },
            Event::Correction(index) => {
                let flight = &self.flights[index];
                match Course::of(flight).correction(flight).or_else(|| outcome(flight)) {
                    Some(body) => self.client.post(Route::Outcomes, at_ms, body).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Judges, promotes and trains at the end of a week.
    async fn end_week(&mut self, over: DateTime<Utc>) -> Result<(), Error> {
        let week = self.journal.state.weeks + 1;
        let over_ms = over.timestamp_millis();
        self.client.post(Route::Time, over_ms, Bytes::new()).await?;
        self.tables.wait_through(over_ms).await?;
        let rows = self.tables.rows(over_ms).await?;
        let state = self.journal.state.clone();
        // Training takes a second of one core, in which the services are to go on.
        let since_ms = (over - Duration::days(7)).timestamp_millis();
        let (verdict, candidate) = tokio::task::spawn_blocking(move || {
            let verdict = state.candidate.and_then(|candidate| judge(state.current, candidate, &rows, since_ms));
            let examples: Vec<Example> = rows.into_iter().map(|row| row.example).collect();
            (verdict, (examples.len(), Model::train(&examples)))
        })
        .await?;
        let mut line = format!("week {week:>2} to {}", over.date_naive());
        if let Some(verdict) = verdict {
            line += &verdict.to_string();
            if verdict.promoted() {
                self.journal.state.current = verdict.candidate;
            }
        }
        match candidate {
            (known, Ok(model)) => {
                let name = format!("week-{week:02}");
                line += &format!("; trained {name} from {known} flights");
                self.journal.state.candidate = Some(Version { name, model });
            }
            (_, Err(reason)) => {
                line += &format!("; trained none: {reason}");
                self.journal.state.candidate = None;
            }
        }
        self.journal.state.weeks = week;
        self.journal.save()?;
        println!("{line}; {} serves", self.journal.state.current.name);
        Ok(())
    }
}

/// How a candidate did against the serving model on a week that it had not seen.
struct Verdict {
    candidate: Version,
    against: String,
    log_loss: [f64; 2],
    flights: usize,
}

impl Verdict {
    fn promoted(&self) -> bool {
        self.log_loss[0] < self.log_loss[1]
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [candidate, current] = self.log_loss;
        write!(
            f,
            "; {} on {} new flights: log loss {candidate:.4} against {current:.4} of {}, {}",
            self.candidate.name,
            self.flights,
            self.against,
            if self.promoted() { "promoted" } else { "not promoted" }
        )
    }
}

/// None where the week had no flight to judge by.
fn judge(current: Version, candidate: Version, rows: &[Row], since_ms: i64) -> Option<Verdict> {
    let week: Vec<&Example> = rows.iter().filter(|row| row.as_of_ms > since_ms).map(|row| &row.example).collect();
    let quality =
        |model: &Model| Quality::of(week.iter().map(|example| (model.predict(&example.features), example.late)));
    let log_loss = [quality(&candidate.model)?.log_loss, quality(&current.model)?.log_loss];
    Some(Verdict { candidate, against: current.name, log_loss, flights: week.len() })
}

/// Departures, landings and what follows them in the order of time; of one instant, departures first.
fn events(flights: &[Flight], corrections: bool) -> Vec<(i64, Event)> {
    let departures =
        flights.iter().enumerate().map(|(index, flight)| (flight.departed_at_ms(), Event::Departure(index)));
    let stated = flights.iter().enumerate().filter_map(|(index, flight)| {
        let course = if corrections { Course::of(flight) } else { Course::Plain };
        let (first, next) = course.delays();
        let landed_at = flight.landed_at?;
        let landing = Some(((landed_at + first).timestamp_millis(), Event::Landing(index)));
        let correction = next.map(|next| ((landed_at + next).timestamp_millis(), Event::Correction(index)));
        Some([landing, correction].into_iter().flatten())
    });
    let mut events: Vec<(i64, Event)> = departures.chain(stated.flatten()).collect();
    events.sort_unstable();
    events
}

/// The last tick at which a flight is due, and the instant to which the clock must move for it to be sealed.
fn end(flights: &[Flight], last_event_ms: i64) -> Result<(i64, i64), Error> {
    let contract = Contract::parse(CONTRACT).map_err(|faults| format!("the contract: {faults:?}"))?;
    let (grid_ms, drain_ms) = (contract.seal.grid_ms, contract.seal.drain_ms);
    let up = |at_ms: i64| (at_ms + grid_ms - 1).div_euclid(grid_ms) * grid_ms;
    let last_ms = flights.iter().map(Flight::departed_at_ms).max().unwrap_or_default();
    // What comes last may be later than the last label's window: its revision is waited for as well.
    let due_ms = up(last_ms + contract.seal_ms()).max(up(last_event_ms + 1));
    Ok((due_ms, due_ms + drain_ms + grid_ms))
}

fn prediction(flight: &Flight, version: &Version) -> Bytes {
    let known = [
        ("flight", Some(json!(flight.flight))),
        ("scheduled_at", Some(json!(text(flight.scheduled_at)))),
        ("temp_f", flight.temp_f.map(Value::from)),
        ("wind_mph", flight.wind_mph.map(Value::from)),
        ("precip_in", flight.precip_in.map(Value::from)),
        ("visibility_mi", flight.visibility_mi.map(Value::from)),
        ("weather_at", flight.weather_at.map(|at| json!(text(at)))),
    ];
    let mut features: Map<String, Value> =
        known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    features.insert("carrier".to_owned(), json!(flight.carrier));
    features.insert("origin".to_owned(), json!(flight.origin));
    features.insert("dest".to_owned(), json!(flight.dest));
    features.insert("distance_mi".to_owned(), json!(flight.distance));
    features.insert("dep_delay_min".to_owned(), json!(flight.dep_delay_min));
    let body = json!({
        "prediction_id": flight.prediction_id(),
        "event_time": text(flight.departed_at),
        "model_version": version.name,
        "entity": {"flight_key": flight.flight_key, "tail_number": flight.tailnum},
        "features": features,
        "prediction": {"late_probability": version.model.predict(&Features::of(flight))},
    });
    Bytes::from(body.to_string())
}

/// None for a flight of which no landing is known.
fn outcome(flight: &Flight) -> Option<Bytes> {
    let mut labels = Map::from_iter([("landed".to_owned(), json!(true))]);
    if let Some(delay_min) = flight.arr_delay_min {
        labels.insert("arr_delay_min".to_owned(), json!(f64::from(delay_min)));
        labels.insert("late15".to_owned(), json!(delay_min > 15));
    }
    let body = json!({
        "prediction_id": flight.prediction_id(),
        "event_id": flight.event_id()?,
        "event_time": text(flight.landed_at?),
        "labels": labels,
    });
    Some(Bytes::from(body.to_string()))
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

fn instant(at_ms: i64) -> String {
    DateTime::from_timestamp_millis(at_ms).map_or_else(|| at_ms.to_string(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_in_order_and_departures_first() {
        let flights = flights::read(None).unwrap();
        let events = events(&flights, false);
        assert_eq!(events.len(), 78_035 + 77_960);
        assert!(events.windows(2).all(|pair| pair[0] < pair[1]));
        let (at, event) = events[0];
        assert_eq!((instant(at).as_str(), event), ("2013-01-01T10:17:00Z", Event::Departure(0)));
    }

    #[test]
    fn the_clock_ends_after_the_last_tick() {
        let flights = flights::read(None).unwrap();
        let last_ms = events(&flights, false).last().unwrap().0;
        let (due_ms, end_ms) = end(&flights, last_ms).unwrap();
        // The last departure is at 23:59 on the 31st; its labels close 13 hours later.
        assert_eq!(instant(due_ms), "2013-04-01T13:00:00Z");
        assert_eq!(instant(end_ms), "2013-04-01T13:15:00Z");
    }

    #[test]
    fn a_diverted_flight_lands_without_a_delay() {
        let mut flight = flights::read(None).unwrap().remove(0);
        let body = |flight: &Flight| outcome(flight).map(|body| String::from_utf8(body.to_vec()).unwrap());
        assert!(body(&flight).unwrap().contains(r#""landed":true,"arr_delay_min":11.0,"late15":false"#));
        flight.arr_delay_min = None;
        assert!(body(&flight).unwrap().contains(r#""labels":{"landed":true}"#));
        flight.landed_at = None;
        assert_eq!(body(&flight), None);
    }
}
