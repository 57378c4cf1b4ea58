//! What the producers' numbers show: which rows that a sidecar accepted are in the raw tables.

use super::Names;

/// Named queries that both of the following begin with. `said`: the last number that the ledger has of each producer and
/// kind. `landed`: the numbers in the raw tables. `gaps`: the spans of numbers that are neither landed nor in a loss, up to
/// the last number that is known of: where what is covered so far ends before the next that is covered begins.
fn numbers(names: &Names) -> String {
    let (predictions, outcomes, ledger) = (names.table("predictions"), names.table("outcomes"), names.shared("ledger"));
    let model = names.model;
    let landed = |kind: &str, table: &str| {
        format!(
            "SELECT producer_id, '{kind}' AS kind, producer_seq FROM {table}\n  \
             WHERE producer_id IS NOT NULL AND producer_seq IS NOT NULL"
        )
    };
    format!(
        "WITH said AS (
  SELECT producer_id, kind, max(last_seq) AS accepted FROM {ledger}
  WHERE model = '{model}' AND closed_by <> 'loss' GROUP BY producer_id, kind),
landed AS (
  {}
  UNION ALL
  {}),
ends AS (
  SELECT producer_id, kind, max(last_seq) + 1 AS after_last FROM (
    SELECT producer_id, kind, accepted AS last_seq FROM said
    UNION ALL SELECT producer_id, kind, producer_seq FROM landed) known
  GROUP BY producer_id, kind),
covered AS (
  SELECT producer_id, kind, producer_seq AS first_seq, producer_seq AS last_seq FROM landed
  UNION ALL SELECT producer_id, kind, first_seq, last_seq FROM {ledger} WHERE model = '{model}' AND closed_by = 'loss'
  UNION ALL SELECT producer_id, kind, 0, 0 FROM ends
  UNION ALL SELECT producer_id, kind, after_last, after_last FROM ends),
gaps AS (
  SELECT producer_id, kind, reached + 1 AS first_seq, first_seq - 1 AS last_seq FROM (
    SELECT producer_id, kind, first_seq, max(last_seq) OVER (
      PARTITION BY producer_id, kind ORDER BY first_seq, last_seq
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM covered) steps
  WHERE first_seq > reached + 1)
",
        landed("predictions", &predictions),
        landed("outcomes", &outcomes)
    )
}

/// Accepted by the ledger, landed, lost and missing, per producer and kind. A row that landed after it was given up counts as
/// landed.
pub fn completeness(names: &Names) -> String {
    numbers(names)
        + "SELECT e.producer_id, e.kind, coalesce(s.accepted, 0) AS accepted, coalesce(l.landed, 0) AS landed,
  e.after_last - 1 - coalesce(l.landed, 0) - coalesce(g.missing, 0) AS lost, coalesce(g.missing, 0) AS missing
FROM ends e
LEFT JOIN said s ON s.producer_id = e.producer_id AND s.kind = e.kind
LEFT JOIN (SELECT producer_id, kind, count(DISTINCT producer_seq) AS landed FROM landed GROUP BY producer_id, kind) l
  ON l.producer_id = e.producer_id AND l.kind = e.kind
LEFT JOIN (SELECT producer_id, kind, sum(last_seq - first_seq + 1) AS missing FROM gaps GROUP BY producer_id, kind) g
  ON g.producer_id = e.producer_id AND g.kind = e.kind
ORDER BY 1, 2"
}

/// The numbers that are neither landed nor accounted for, in spans.
pub fn missing(names: &Names) -> String {
    numbers(names) + "SELECT producer_id, kind, first_seq, last_seq FROM gaps ORDER BY 1, 2, 3"
}
