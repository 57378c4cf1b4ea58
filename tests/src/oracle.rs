//! What must come out of the demonstration, in plain SQL over the CSV file (DuckDB's dialect).
//!
//! A landing counts for a label when it happened within twelve hours of the departure; it is then also known before
//! the row is sealed, thirteen hours after. Nothing here knows of topics, ticks or joins.

use std::path::{Path, PathBuf};

/// The flights that the demonstration carries.
pub fn first_quarter() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/flights/flights-2013-q1.csv.gz")
}

/// A `SELECT` of the flights in `file` with the labels that each must have: `flight_key`, `departed_at`, `landed`,
/// `landed_status`, `arr_delay_min`, `arr_delay_min_status`, `late15`, `late15_status`, and of the landing that decided
/// `known_at`; `as_of` is the tick at which the row is sealed.
pub fn labels(file: &Path) -> String {
    format!(
        "SELECT flight_key, carrier, tailnum, distance, dep_delay_min, wind_mph, departed_at,
            to_timestamp(ceil(epoch(departed_at + INTERVAL 13 HOUR) / 300) * 300) AS as_of,
            counts AS landed, CASE WHEN counts THEN 'observed' ELSE 'default' END AS landed_status,
            CASE WHEN counts THEN delay END AS arr_delay_min,
            CASE WHEN counts AND delay IS NOT NULL THEN 'observed' ELSE 'missing' END AS arr_delay_min_status,
            CASE WHEN counts THEN delay > 15 END AS late15,
            CASE WHEN counts AND delay IS NOT NULL THEN 'observed' ELSE 'missing' END AS late15_status,
            CASE WHEN counts THEN landed_at END AS known_at
        FROM (
            SELECT * EXCLUDE (arr_delay_min), arr_delay_min AS delay,
                coalesce(landed_at < departed_at + INTERVAL 12 HOUR, false) AS counts
            FROM read_csv('{}', header = true, nullstr = '', types = {{'flight_key': 'VARCHAR', 'tailnum': 'VARCHAR',
                'departed_at': 'TIMESTAMPTZ', 'landed_at': 'TIMESTAMPTZ', 'arr_delay_min': 'DOUBLE'}})
        )",
        file.display()
    )
}

/// Per label the rows by value and status, and the sum of the delays: one row of counts.
///
/// Columns: rows, landed true, landed default, delays observed, delays missing, their sum, late true, late false, late
/// missing. `relation` has columns named as those of [`labels`].
pub fn counts(relation: &str) -> String {
    format!(
        "SELECT count(*), sum(CASE WHEN landed AND landed_status = 'observed' THEN 1 ELSE 0 END),
            sum(CASE WHEN NOT landed AND landed_status = 'default' THEN 1 ELSE 0 END),
            sum(CASE WHEN arr_delay_min IS NOT NULL AND arr_delay_min_status = 'observed' THEN 1 ELSE 0 END),
            sum(CASE WHEN arr_delay_min IS NULL AND arr_delay_min_status = 'missing' THEN 1 ELSE 0 END),
            CAST(sum(arr_delay_min) AS BIGINT),
            sum(CASE WHEN late15 AND late15_status = 'observed' THEN 1 ELSE 0 END),
            sum(CASE WHEN NOT late15 AND late15_status = 'observed' THEN 1 ELSE 0 END),
            sum(CASE WHEN late15 IS NULL AND late15_status = 'missing' THEN 1 ELSE 0 END)
        FROM {relation}"
    )
}

/// The training table under the names of [`labels`]; the same text for every engine.
pub fn training(table: &str) -> String {
    format!(
        "(SELECT label_landed AS landed, label_landed_status AS landed_status,
            label_arr_delay_min AS arr_delay_min, label_arr_delay_min_status AS arr_delay_min_status,
            label_late15 AS late15, label_late15_status AS late15_status
        FROM {table}) AS training"
    )
}

/// The rows of `table` (DuckDB) that the CSV does not give, or the other way round: none when all is well.
///
/// Compared beside the labels: the key, some features, and the three times that decide (event, as_of, known_at).
pub fn differences(file: &Path, table: &str) -> String {
    const OURS: &str = "entity_key, carrier, tail, distance, delay_at_departure, wind, event_time, as_of, landed,
        landed_status, arr_delay_min, arr_delay_min_status, late15, late15_status, known_at";
    let expected = format!(
        "SELECT flight_key, carrier, tailnum, distance, dep_delay_min, wind_mph, departed_at, as_of, landed, landed_status,
            arr_delay_min, arr_delay_min_status, late15, late15_status, known_at FROM ({})",
        labels(file)
    );
    let found = format!(
        "SELECT flight_key, carrier, tail_number, distance_mi, dep_delay_min, wind_mph, event_time, as_of, label_landed,
            label_landed_status, label_arr_delay_min, label_arr_delay_min_status, label_late15, label_late15_status,
            label_landed_known_at FROM {table}"
    );
    format!(
        "WITH expected({OURS}) AS ({expected}), found({OURS}) AS ({found})
        (SELECT 'expected' AS only_in, * FROM (SELECT * FROM expected EXCEPT ALL SELECT * FROM found))
        UNION ALL (SELECT 'found', * FROM (SELECT * FROM found EXCEPT ALL SELECT * FROM expected))
        LIMIT 20"
    )
}
