//! The training set with the labels that are known now, or were at an instant; and a sample of it.

use chrono::{DateTime, Utc};

use super::Names;
use super::model::Model;

/// The base rows with the labels of the last revision: of each label the row with the greatest `as_of`, among base row and
/// revisions, that has a status for it. `revised_at` is the greatest `as_of` of the revisions from which a label came. With
/// `as_of` of base rows and revisions up to that instant: rows are never changed, so they are the same whenever it is asked.
pub(super) fn training(names: &Names, model: &Model, as_of: Option<DateTime<Utc>>) -> String {
    let (base, revisions) = (names.table("training"), names.table("label_revisions"));
    let bound = |word: &str, of: &str| {
        as_of.map_or(String::new(), |as_of| format!("\n  {word} {of}as_of <= {}", names.instant(as_of)))
    };
    let labels = labels(model);
    if labels.is_empty() {
        let none = format!("CAST(NULL AS {})", names.timestamp_type());
        return format!("SELECT t.*, {none} AS revised_at\nFROM {base} t{}", bound("WHERE", "t."));
    }
    let never = names.instant(DateTime::UNIX_EPOCH);
    let status = |name: &str| names.column(&format!("label_{name}_status"));
    let mut lasts = String::new();
    let mut chosen = String::new();
    let mut revised = Vec::new();
    let mut columns: Vec<(String, String)> =
        model.training.iter().map(|(name, _)| (name.clone(), format!("t.{}", names.column(name)))).collect();
    for name in &labels {
        lasts.push_str(&format!(
            ",\n    max(CASE WHEN r.{} IS NOT NULL THEN r.as_of END) OVER (PARTITION BY r.prediction_id) AS last_of_{name}",
            status(name)
        ));
        let is_last = format!("{} IS NOT NULL AND as_of = last_of_{name}", status(name));
        chosen.push_str(&format!(",\n    max(last_of_{name}) AS last_of_{name}"));
        let is_revised =
            format!("(n.last_of_{name} >= t.as_of OR n.last_of_{name} IS NOT NULL AND t.{} IS NULL)", status(name));
        for (part, suffix) in [("value", ""), ("status", "_status"), ("at", "_at"), ("known", "_known_at")] {
            let column = format!("label_{name}{suffix}");
            chosen.push_str(&format!(
                ", max(CASE WHEN {is_last} THEN {} END) AS {part}_of_{name}",
                names.column(&column)
            ));
            if let Some((_, expression)) = columns.iter_mut().find(|(other, _)| *other == column) {
                *expression = format!(
                    "CASE WHEN {is_revised} THEN n.{part}_of_{name} ELSE {expression} END AS {}",
                    names.column(&column)
                );
            }
        }
        revised.push(format!("CASE WHEN {is_revised} THEN n.last_of_{name} ELSE {never} END"));
    }
    let columns: Vec<String> = columns.into_iter().map(|(_, expression)| expression).collect();
    // Two at least, as some engines want them; an instant that is no tick stands for null, of which they think differently.
    let revised_at = format!("nullif(greatest({never}, {}), {never})", revised.join(", "));
    format!(
        "WITH revised AS (
  SELECT r.*{lasts}
  FROM {revisions} r{}),
newest AS (
  SELECT prediction_id{chosen}
  FROM revised GROUP BY prediction_id)
SELECT {},
  {} AS revised_at
FROM {base} t LEFT JOIN newest n ON n.prediction_id = t.prediction_id{}",
        bound("WHERE", "r."),
        columns.join(",\n  "),
        revised_at,
        bound("WHERE", "t."),
    )
}

/// The names of the labels that the training table has columns for.
pub(super) fn labels(model: &Model) -> Vec<String> {
    let has = |column: &str| model.training.iter().any(|(name, _)| name == column);
    model.labels().into_keys().filter(|name| has(&format!("label_{name}_status"))).map(str::to_owned).collect()
}

/// The rows of which `condition` does not hold, and a share of the others, each of which then stands for `1 / rate` as many.
///
/// Which are kept follows from the MD5 of the prediction's id: whoever asks, in whichever engine, gets the same rows, and what
/// is kept at one rate is kept at every greater one.
pub(super) fn sampled(
    names: &Names,
    model: &Model,
    rate: f64,
    condition: &str,
    as_of: Option<DateTime<Utc>>,
) -> String {
    let columns: Vec<String> = model
        .training
        .iter()
        .map(|(name, _)| match name.as_str() {
            "sample_weight" => format!(
                "CASE WHEN {condition} THEN coalesce(sample_weight, 1E0) / {rate:e} ELSE sample_weight END AS sample_weight"
            ),
            _ => names.column(name),
        })
        .collect();
    let kept = match threshold(rate) {
        Some(first_out) => format!("substr({}, 1, 8) < '{first_out}'", names.md5("prediction_id")),
        None => "TRUE".to_owned(),
    };
    let text = training(names, model, as_of);
    format!(
        "SELECT {}, revised_at\nFROM (\n{text}) t\nWHERE CASE WHEN {condition} THEN {kept} ELSE TRUE END",
        columns.join(", ")
    )
}

/// The least 32 bits that are out at a rate, as hexadecimal digits: numbers of one length stand in the order of their digits.
/// None where all are in.
fn threshold(rate: f64) -> Option<String> {
    let first_out = (rate * 4_294_967_296.0).ceil();
    (first_out < 4_294_967_296.0).then(|| format!("{:08x}", first_out as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_share_of_numbers_below_its_threshold() {
        assert_eq!(threshold(0.5).as_deref(), Some("80000000"));
        assert_eq!(threshold(0.1).as_deref(), Some("1999999a"));
        assert_eq!(threshold(1.0), None);
    }
}
