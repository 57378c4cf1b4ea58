//! The views as SQL, by DuckDB over the tables of random logs. What `flywheel-joiner sql audit` recomputes shares no code with
//! the joiner, nor with the model of the other tests.

use serde_json::{Value, json};

use super::duckdb::{ask, skipped};
use super::random::{Case, case};
use super::rig::Rig;
use super::views;
use crate::commands::sql::{self, Engine, Model, Names, Options, View};

/// Cases in each run of the tests; `FLYWHEEL_AUDITS=1000` makes it long, `FLYWHEEL_CASE=n` repeats one.
const CASES: u64 = 6;

/// The text of a view for DuckDB; an error's text where there is none.
pub async fn text(rig: &Rig, namespace: &str, view: View, options: &Options) -> Result<String, String> {
    let model = Model::read(&rig.shared.config, "m").await.map_err(|error| error.to_string())?;
    let names = Names { engine: Engine::Duckdb, namespace, model: "m" };
    sql::text(&names, view, options, &model).map_err(|error| error.to_string())
}

async fn audit(rig: &Rig, namespace: &str) -> Option<String> {
    match text(rig, namespace, View::Audit, &Options::default()).await {
        Ok(audit) => Some(audit),
        // A log may be too short for a tick.
        Err(error) if error.contains("nothing to compare") => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_of_random_logs_finds_nothing_and_the_views_are_right() {
    if skipped("the_audit_of_random_logs_finds_nothing_and_the_views_are_right") {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = match number("FLYWHEEL_CASE") {
        Some(case) => (case, 1),
        None => (uuid::Uuid::new_v4().as_u64_pair().0 >> 1, number("FLYWHEEL_AUDITS").unwrap_or(CASES)),
    };
    let mut rows = 0;
    for number in first..first + count {
        let Case { rig, log } = case(number).await;
        let mut statements: Vec<String> = audit(&rig, "main").await.into_iter().collect();
        let of_audit = statements.len();
        statements.push("SELECT count(*) FROM main.m_training".to_owned());
        statements.extend(views::statements(&rig).await);
        let answers = ask(&rig, &statements);
        assert!(answers[..of_audit].iter().all(Vec::is_empty), "case {number}: {:#?}", answers[0]);
        rows += answers[of_audit][0][0].as_u64().unwrap();
        views::check(&log, number, &answers[of_audit + 1..]);
    }
    println!("{count} cases from {first}: {rows} rows of training");
    assert!(rows > 0 || count < CASES);
}

/// The first case with the label `total` in each of whose tables there is something.
async fn full_case() -> Rig {
    for number in 0..50 {
        let Case { rig, log } = case(number).await;
        if log.contracts[&1].label("total").is_none() {
            continue;
        }
        let mut counts = Vec::new();
        for table in ["m_training", "m_label_revisions", "m_unmatched"] {
            counts.push(rig.rows(table).await.len());
        }
        if counts.iter().all(|count| *count > 1) {
            return rig;
        }
    }
    panic!("no case has rows in all tables");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_names_the_row_that_is_wrong() {
    if skipped("the_audit_names_the_row_that_is_wrong") {
        return;
    }
    let rig = full_case().await;
    let audit = audit(&rig, "changed").await.expect("a tick");
    let tables = ["m_predictions", "m_outcomes", "m_training", "m_label_revisions", "m_unmatched", "seal_log"];
    let restore = |table: &str| format!("CREATE OR REPLACE TABLE changed.{table} AS SELECT * FROM main.{table}");
    let one = |table: &str| format!("prediction_id = (SELECT min(prediction_id) FROM main.{table})");
    // What is done to a table, by whose rows it is seen, and what the audit is to say of it.
    let (training, revisions, unmatched) = ("m_training", "m_label_revisions", "m_unmatched");
    let first_tick = format!("as_of = (SELECT min(as_of) FROM main.{revisions} WHERE {})", one(revisions));
    let first_event = format!("event_id = (SELECT min(event_id) FROM main.{unmatched} WHERE {})", one(unmatched));
    let cases: Vec<(&str, String, Vec<[&str; 2]>)> = vec![
        (
            training,
            format!("DELETE FROM changed.{training} WHERE {}", one(training)),
            vec![["missing", "the whole row"]],
        ),
        (
            training,
            format!("INSERT INTO changed.{training} SELECT * FROM main.{training} WHERE {}", one(training)),
            vec![["foreign", "the whole row"]],
        ),
        (
            training,
            format!("UPDATE changed.{training} SET label_total_status = 'pending' WHERE {}", one(training)),
            vec![
                ["foreign", "label_total_status is pending, not "],
                ["missing", "label_total_status is pending, not "],
            ],
        ),
        (
            training,
            format!("UPDATE changed.{training} SET as_of = as_of - INTERVAL 5 MINUTE WHERE {}", one(training)),
            vec![["foreign", "as_of is "], ["missing", "as_of is "]],
        ),
        (
            training,
            format!("UPDATE changed.{training} SET x = -x WHERE {}", one(training)),
            vec![["foreign", "x is -0.5, not 0.5"], ["missing", "x is -0.5, not 0.5"]],
        ),
        (
            revisions,
            format!("DELETE FROM changed.{revisions} WHERE {} AND {first_tick}", one(revisions)),
            vec![["missing", "the whole row"]],
        ),
        (
            revisions,
            format!(
                "UPDATE changed.{revisions} SET label_won = NOT coalesce(label_won, FALSE) WHERE {} AND {first_tick}",
                one(revisions)
            ),
            vec![["foreign", "label_won is "], ["missing", "label_won is "]],
        ),
        (
            unmatched,
            format!("UPDATE changed.{unmatched} SET reason = 'lost' WHERE {} AND {first_event}", one(unmatched)),
            vec![["foreign", "reason is lost, not "], ["missing", "reason is lost, not "]],
        ),
        (
            unmatched,
            format!("DELETE FROM changed.{unmatched} WHERE {} AND {first_event}", one(unmatched)),
            vec![["missing", "the whole row"]],
        ),
    ];
    let mut statements = vec!["CREATE SCHEMA changed".to_owned()];
    statements.extend(tables.map(restore));
    statements.push(audit.clone());
    for (table, change, _) in &cases {
        let id = format!("SELECT min(prediction_id) FROM main.{table}");
        statements.extend([change.clone(), audit.clone(), id, restore(table)]);
    }
    let answers = ask(&rig, &statements);
    assert_eq!(json!(answers[7]), json!([]), "before");
    for ((table, change, expected), answers) in cases.iter().zip(answers[8..].chunks(4)) {
        let mut found = answers[1].clone();
        found.sort_by_key(|row| row[0].as_str().map(str::to_owned));
        let id = &answers[2][0][0];
        let word = table.trim_start_matches("m_").trim_start_matches("label_");
        assert_eq!(found.len(), expected.len(), "{change}: {found:?}");
        for (row, [side, what]) in found.iter().zip(expected) {
            let said = row[4].as_str().unwrap_or_default();
            assert_eq!((&row[0], &row[1], &row[2]), (&json!(side), &json!(word), id), "{change}: {found:?}");
            assert!(said.starts_with(what), "{change}: {said}");
        }
        assert!(answers[0].iter().flatten().all(|count: &Value| *count == json!(1)), "{change}");
    }
}
