//! What metrics, ledger and dead letters say at the end.

use std::collections::BTreeMap;

use flywheel_tests::system::until;
use serde_json::Value;

use super::{Letter, MODEL, Run};

/// How many of the letters have each reason, by kind and reason.
fn reasons(letters: &[Letter]) -> BTreeMap<(&str, &str), u64> {
    let mut reasons = BTreeMap::new();
    for (kind, reason, ..) in letters {
        *reasons.entry((kind.as_str(), reason.as_str())).or_default() += 1;
    }
    reasons
}

/// The joiner counts what it found on the topics, reason by reason.
pub async fn check_joiner_counts(run: &Run, by_joiner: &[Letter]) {
    const LETTERS: &str = "flywheel_joiner_dead_letters_total";
    const SKIPPED: &str = "flywheel_joiner_side_skipped_total";
    until("the joiner's dead letters", async || {
        let metrics = run.system.joiner.metrics().await;
        metrics.sum(LETTERS, &[]) >= by_joiner.len() as u64 && metrics.sum(SKIPPED, &[]) >= 4
    })
    .await;
    let metrics = run.system.joiner.metrics().await;
    for ((kind, reason), count) in reasons(by_joiner) {
        let labels = [("model", MODEL), ("kind", kind), ("reason", reason)];
        assert_eq!(metrics.sum(LETTERS, &labels), count, "{kind} {reason}");
    }
    assert_eq!(metrics.sum(LETTERS, &[]), by_joiner.len() as u64);
    assert_eq!(metrics.sum("flywheel_joiner_rerouted_total", &[("model", MODEL)]), 1);
    for table in ["dead_letter", "ledger"] {
        assert_eq!(metrics.sum(SKIPPED, &[("table", table)]), 2, "{table}");
    }
}

/// The sidecar counts what it refused, reason by reason, and its ledger says the same.
pub async fn check_sidecar_counts(run: &mut Run, by_sidecar: &[Letter]) {
    let reasons = reasons(by_sidecar);
    let metrics = run.system.sidecar.metrics().await;
    for ((kind, reason), count) in &reasons {
        let labels = [("model", MODEL), ("kind", *kind), ("reason", *reason)];
        assert_eq!(metrics.sum("flywheel_refused_rows_total", &labels), *count, "{kind} {reason}");
    }
    let refused = by_sidecar.len() as u64;
    assert_eq!(metrics.sum("flywheel_refused_rows_total", &[]), refused);
    assert_eq!(metrics.sum("flywheel_dead_letters_total", &[("result", "kept")]), refused);
    assert_eq!(metrics.sum("flywheel_dead_letters_total", &[("result", "lost")]), 0);

    // The ledger is closed by the end of the sidecar.
    run.system.sidecar.stop().await;
    let ledger =
        "SELECT kind, sum(accepted), sum(refused), sum(dropped), max(last_seq) FROM (SELECT DISTINCT * FROM ledger)
        WHERE model = 'bad_input' GROUP BY kind HAVING bool_or(closed_by = 'shutdown') ORDER BY kind";
    until("the ledger", async || run.ask(ledger).len() == 2).await;
    let sent_by_others = 3;
    let accepted = [run.outcomes.len(), run.predictions.len() - sent_by_others];
    let refused =
        |kind: &str| -> u64 { reasons.iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum() };
    let expected: Vec<String> = [("outcomes", accepted[0]), ("predictions", accepted[1])]
        .map(|(kind, accepted)| format!("{kind} {accepted} {} 0 {accepted}", refused(kind)))
        .to_vec();
    // A sum is a HUGEINT, which may come as a number or as text.
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let found: Vec<String> =
        run.ask(ledger).iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(found, expected);
}

/// Every letter is in the table, with its reason and its body.
pub async fn check_letters(run: &Run) {
    // A letter may be appended twice and is one by its id.
    let sql = "SELECT kind, reason, body, body_bytes, topic, kafka_partition, kafka_offset, faults FROM
        (SELECT DISTINCT ON (dead_letter_id) * FROM dead_letter WHERE model = 'bad_input')";
    until("the dead letters", async || run.ask(sql).len() >= run.letters.len()).await;
    let mut found: Vec<Letter> = Vec::new();
    for row in run.ask(sql) {
        let text = |place: usize| row[place].as_str().map(str::to_owned);
        let place = text(4).map(|topic| (topic, row[5].as_i64().unwrap() as i32, row[6].as_i64().unwrap()));
        let faults = row[7].as_array().unwrap();
        assert!(!faults.is_empty() && faults.iter().all(|fault| fault.as_str().is_some_and(|text| text.len() > 10)));
        if place.is_none() {
            // A sidecar's faults carry their pointer and reason; the first reason is the letter's.
            assert!(faults[0].as_str().unwrap().contains(&format!(": {}: ", row[1].as_str().unwrap())), "{faults:?}");
        }
        let length = usize::try_from(row[3].as_u64().unwrap()).unwrap();
        found.push((text(0).unwrap(), text(1).unwrap(), text(2).unwrap_or_default(), length, place));
    }
    let mut expected = run.letters.clone();
    expected.sort();
    found.sort();
    for (found, expected) in found.iter().zip(&expected) {
        // Bodies may be long.
        let shown = |letter: &Letter| {
            format!("{:?}", (&letter.0, &letter.1, letter.2.chars().take(200).collect::<String>(), letter.3, &letter.4))
        };
        assert!(found == expected, "found {}, expected {}", shown(found), shown(expected));
    }
    assert_eq!(found.len(), expected.len());
}
