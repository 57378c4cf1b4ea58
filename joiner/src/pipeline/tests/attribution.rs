//! Outcomes that name an entity: the text that attributes them, by DuckDB, against the rule said once more.

use flywheel_schemas::contract::Scalar;
use flywheel_schemas::{id, partition};

use super::duckdb::{ask, skipped};
use super::random::Random;
use super::rig::{MINUTE, Rig, START, prediction};
use super::*;
use crate::commands::sql::{self, Engine, Model, Names, Options, View};

/// An entity of two parts, one of them a word of SQL.
const ENTITIES: &str = "
apiVersion: flywheel/v1
kind: ModelContract
model: m
version: 1
entity: {user: {type: string}, shop: {type: long}}
features: {x: {type: double}}
prediction: {p: {type: double}}
labels:
  bought: {type: boolean, window: 1h, lateness: 20m, aggregate: any, default: false}
  paid:   {type: double, window: 1h, lateness: 20m, aggregate: last}
seal: {when: all_closed, grid: 5m, drain: 10m, horizon: 1d}
";

const WINDOW_MS: i64 = 40 * MINUTE;
const LATENESS_MS: i64 = 6 * MINUTE;

#[derive(Debug, Clone)]
struct Served {
    id: String,
    entity: (String, i64),
    event_ms: i64,
    /// Of the first copy.
    ingest_ms: i64,
    is_seen: bool,
}

#[derive(Debug)]
struct Fact {
    id: String,
    entity: (String, i64),
    at_us: i64,
}

/// The prediction that a fact is about: of those that count, the one that no other beats.
fn touch<'s>(fact: &Fact, all: &'s [Served], through_ms: i64, last: bool) -> Option<&'s str> {
    let is_settled = fact.at_us + LATENESS_MS * 1000 < through_ms * 1000;
    let counts = |served: &&Served| {
        let before_us = fact.at_us - served.event_ms * 1000;
        served.entity == fact.entity
            && served.is_seen
            && (0..WINDOW_MS * 1000).contains(&before_us)
            && served.ingest_ms * 1000 <= fact.at_us + LATENESS_MS * 1000
    };
    let by = |served: &&Served| (served.event_ms, served.id.clone());
    let counting = all.iter().filter(counts);
    let chosen = if last { counting.max_by_key(by) } else { counting.min_by_key(by) };
    chosen.filter(|_| is_settled).map(|served| served.id.as_str())
}

async fn serve(rig: &Rig, served: &Served, append_ms: i64) {
    let mut values = prediction(&served.id, served.event_ms, 0.5);
    values.push(("entity.user", Scalar::String(served.entity.0.clone())));
    values.push(("entity.shop", Scalar::Long(served.entity.1)));
    if !served.is_seen {
        values.push(("exposure", Scalar::String("shadow".to_owned())));
    }
    let value = rig.encode(Kind::Predictions, 1, &values);
    let home = partition::of(served.id.as_bytes(), rig.partitions);
    rig.append(Kind::Predictions, home, append_ms, Some(&value), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_about_an_entity_go_to_the_first_or_the_last_prediction_before_them() {
    if skipped("facts_about_an_entity_go_to_the_first_or_the_last_prediction_before_them") {
        return;
    }
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let mut random = Random(seed);
    let rig = Rig::with(2, ENTITIES).await;
    let minutes = |random: &mut Random, end: u64| i64::try_from(random.below(end)).unwrap() * MINUTE;
    let entity = |random: &mut Random| (random.of(&["a", "b", "ä"]).to_owned(), random.of(&[1, 2]));
    let mut all = Vec::new();
    let mut appends: Vec<(i64, usize)> = Vec::new();
    for number in 0..120_u8 {
        // Several of one instant, some that come late, and copies that come later still.
        let event_ms = START + minutes(&mut random, 180);
        let late = random.of(&[0, 0, 0, 5, 6, 7, 30]) * MINUTE;
        let (entity, is_seen) = (entity(&mut random), !random.one_in(6));
        let id = id::from_parts(event_ms, [number; 10]).to_string();
        appends.push((event_ms + late, all.len()));
        if random.one_in(5) {
            appends.push((event_ms + late + minutes(&mut random, 20), all.len()));
        }
        all.push(Served { id, entity, event_ms, ingest_ms: event_ms + late, is_seen });
    }
    appends.extend((0..=200).step_by(5).map(|minute| (START + minute * MINUTE, usize::MAX)));
    appends.sort_unstable();
    for (time_ms, of) in appends.into_iter().filter(|(time_ms, _)| *time_ms <= START + 200 * MINUTE) {
        match all.get(of) {
            Some(served) => serve(&rig, served, time_ms).await,
            None => rig.tick(time_ms).await,
        }
    }
    let through_ms = START + 200 * MINUTE;
    all.retain(|served| served.ingest_ms <= through_ms);
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    rig.run(&mut pipeline).await;

    let facts: Vec<Fact> = (0..150)
        .map(|number| {
            // Whole minutes meet the edges of windows; microseconds lie between.
            let micros = random.of(&[0, 0, 1, -1]);
            let at_us = (START + minutes(&mut random, 220)) * 1000 + micros;
            Fact { id: format!("f{number}"), entity: entity(&mut random), at_us }
        })
        .collect();
    let rows = facts.iter().map(|fact| {
        let Fact { id, entity: (user, shop), at_us } = fact;
        format!("('{id}', '{user}', CAST({shop} AS BIGINT), make_timestamptz({at_us}), TRUE, CAST(0.5 AS DOUBLE))")
    });
    let columns = "outcome_id, \"user\", shop, event_time, label_bought, label_paid";
    let rows: Vec<String> = rows.collect();
    let mut statements =
        vec![format!("CREATE TABLE main.purchases AS SELECT * FROM (VALUES {}) t({columns})", rows.join(", "))];
    let model = Model::read(&rig.shared.config, "m").await.unwrap();
    let names = Names { engine: Engine::Duckdb, namespace: "main", model: "m" };
    let options = Options {
        outcomes: Some("main.purchases".to_owned()),
        labels: vec!["paid".to_owned(), "bought".to_owned()],
        window: Some(WINDOW_MS),
        lateness: Some(LATENESS_MS),
        ..Options::default()
    };
    for view in [View::AttributionLastTouch, View::AttributionFirstTouch] {
        let text = sql::text(&names, view, &options, &model).unwrap();
        statements.push(format!(
            "SELECT outcome_id, prediction_id, epoch_us(event_time), label_paid, label_bought FROM ({text}) t ORDER BY 1"
        ));
    }
    let answers = ask(&rig, &statements);
    let mut differing = 0;
    for (answer, last) in answers[1..].iter().zip([true, false]) {
        let mut expected: Vec<serde_json::Value> = facts
            .iter()
            .filter_map(|fact| {
                let found = touch(fact, &all, through_ms, last)?;
                differing += usize::from(touch(fact, &all, through_ms, !last) != Some(found));
                Some(serde_json::json!([fact.id, found, fact.at_us, 0.5, true]))
            })
            .collect();
        expected.sort_by_key(|row| row[0].as_str().unwrap().to_owned());
        assert!(expected.len() > 20, "seed {seed}: {} facts only", expected.len());
        assert_eq!(serde_json::json!(answer), serde_json::json!(expected), "seed {seed}, last: {last}");
    }
    assert!(differing > 0, "seed {seed}: first and last touch are one");

    let said =
        |options: &Options| sql::text(&names, View::AttributionLastTouch, options, &model).unwrap_err().to_string();
    assert!(said(&Options { window: None, ..options.clone() }).contains("--window"));
    assert!(said(&Options { outcomes: None, ..options.clone() }).contains("--outcomes"));
    assert!(said(&Options { labels: vec!["sold".to_owned()], ..options.clone() }).contains("--label sold"));
    assert!(said(&Options { entity: vec!["x".to_owned()], ..options.clone() }).contains("has user, shop alone"));
}
