//! Topics that are not those that the tables were filled from: the alarm, and what `adopt` makes of them.

use flywheel_schemas::contract::Scalar;
use flywheel_schemas::log::Folder;

use super::duckdb::{ask, skipped};
use super::rig::{MINUTE, Rig, START, number, read};
use super::*;
use crate::commands::adopt::{self, Plan};
use crate::commands::sql::{Options, View};
use crate::generation;
use crate::partition::Side;
use crate::table::TableError;

const BOTH: [Kind; 2] = [Kind::Predictions, Kind::Outcomes];

async fn plan(rig: &Rig) -> Result<Plan, String> {
    let (config, warehouse) = (&rig.shared.config, &rig.shared.warehouse);
    let plan = adopt::plan("m", &config.log.prefix, &rig.shared.cluster, warehouse, &rig.source.feeds()).await;
    plan.map_err(|error| error.to_string())
}

async fn alarm(rig: &Rig) -> String {
    let error = match rig.try_pipeline("a").await {
        Ok(mut pipeline) => read(&mut pipeline).await.expect_err("the topics are taken for the same"),
        Err(error) => error,
    };
    error.to_string()
}

/// Two predictions of which one is sealed, one that is open, and statements about all three. Returns their ids.
async fn first_generation(rig: &Rig) -> [String; 3] {
    rig.ticks(START, START).await;
    let t = START + MINUTE;
    let sealed = rig.predict(1, t, t, 1.0).await;
    let other = rig.predict(2, t, t, 2.0).await;
    rig.state("e1", &sealed, START + 3 * MINUTE, &[("label.won", Scalar::Boolean(true))]).await;
    rig.state("e2", &other, START + 3 * MINUTE, &[("label.total", Scalar::Long(2))]).await;
    rig.ticks(START + 5 * MINUTE, START + 80 * MINUTE).await;
    let t = START + 82 * MINUTE;
    let open = rig.predict(3, t, t, 3.0).await;
    rig.state(
        "e3",
        &open,
        START + 84 * MINUTE,
        &[("label.won", Scalar::Boolean(true)), ("label.total", Scalar::Long(4))],
    )
    .await;
    rig.ticks(START + 85 * MINUTE, START + 90 * MINUTE).await;
    [sealed, other, open]
}

/// What comes after: copies of what was landed before, statements about it, and a prediction. Returns its id.
async fn second_generation(rig: &Rig, open: &str) -> String {
    rig.tick(START + 100 * MINUTE).await;
    let t = START + MINUTE;
    // Copies, one of which says something else.
    rig.predict(1, t, START + 101 * MINUTE, 1.0).await;
    rig.predict(3, START + 82 * MINUTE, START + 101 * MINUTE, 7.0).await;
    let t = START + 102 * MINUTE;
    let new = rig.predict(4, t, t, 4.0).await;
    rig.state("e3", open, START + 103 * MINUTE, &[("label.total", Scalar::Long(4))]).await;
    rig.state("e4", open, START + 103 * MINUTE, &[("label.total", Scalar::Long(5))]).await;
    rig.state("e5", &new, START + 104 * MINUTE, &[("label.total", Scalar::Long(6))]).await;
    rig.ticks(START + 105 * MINUTE, START + 220 * MINUTE).await;
    new
}

fn places(rows: &[rig::Row]) -> Vec<(i32, i64)> {
    rows.iter().map(|row| (number(&row["kafka_partition"]), number(&row["kafka_offset"]))).collect()
}

#[tokio::test]
async fn tables_go_on_from_topics_that_were_made_anew() {
    // Once with the index that was there, once with one that is built from the table.
    for index in ["a", "b"] {
        let mut rig = Rig::new(2).await;
        let [sealed, other, open] = first_generation(&rig).await;
        let mut before = rig.pipeline("a").await;
        rig.run(&mut before).await;
        drop(before);
        let mut before = rig.pipeline("c").await;
        assert_eq!(rig.rows("m_training").await.len(), 2);
        let nothing = plan(&rig).await.err().unwrap();
        assert!(nothing.contains("nothing to adopt"), "{nothing}");

        rig.make_anew(&BOTH);
        let new = second_generation(&rig, &open).await;
        let said = alarm(&rig).await;
        assert!(said.contains("is not the topic") && said.contains("flywheel-joiner adopt"), "{said}");
        let plan_ = plan(&rig).await.unwrap();
        assert!(plan_.said[0].contains("generation 2 follows 1"), "{:?}", plan_.said);
        assert_eq!(plan_.said.iter().filter(|said| said.contains("another topic, with")).count(), 4);
        assert_eq!(alarm(&rig).await, said, "nothing is done by a plan");
        plan_.carry_out().await.unwrap();

        // One that knows only the topics of before lands nothing more.
        for part in before.partitions.values_mut() {
            let landed = part.predictions.landed.unwrap();
            part.predictions = Side::new(Some(landed));
            part.predictions.pass(landed.next, landed.time_ms + MINUTE);
        }
        let error = before.commit().await.unwrap_err();
        assert!(matches!(error, PipelineError::Table(TableError::Cluster { .. })), "{error}");
        drop(before);

        let mut pipeline = rig.pipeline(index).await;
        rig.run(&mut pipeline).await;
        rig.run(&mut pipeline).await;
        let landed = rig.rows("m_predictions").await;
        assert_eq!(landed.len(), 6);
        for rows in [landed, rig.rows("m_outcomes").await] {
            let mut places = places(&rows);
            let all = places.len();
            places.dedup();
            assert_eq!(places.len(), all, "an offset stands for one record for ever");
        }
        assert_eq!(rig.rows("m_outcomes").await.len(), 6);
        let rows = rig.rows("m_training").await;
        let of = |id: &str| {
            let mut rows = rows.iter().filter(|row| row["prediction_id"] == format!("String({id:?})"));
            let row = rows.next().unwrap_or_else(|| panic!("{id} has no row"));
            assert!(rows.next().is_none(), "{id} has two");
            let cell = |name: &str| row.get(name).map_or("", String::as_str).to_owned();
            (cell("label_won"), cell("label_total"), cell("x"))
        };
        let expected = |won: bool, total: Option<i64>, x: f64| {
            let total = total.map_or(String::new(), |total| format!("Long({total})"));
            (format!("Boolean({won})"), total, format!("Double({:x})", x.to_bits()))
        };
        assert_eq!(of(&sealed), expected(true, None, 1.0));
        assert_eq!(of(&other), expected(false, Some(2), 2.0));
        assert_eq!(of(&open), expected(true, Some(9), 3.0), "what was landed before, and after, once each");
        assert_eq!(of(&new), expected(false, Some(6), 4.0));
        assert_eq!(rows.len(), 4);
        // The time between the topics is a gap.
        let gaps = rig.rows("seal_log").await;
        assert_eq!(gaps.iter().filter(|row| row["cause"] == "String(\"gap\")").count(), 2, "{gaps:?}");

        // Another start goes on where this one ended, and there is nothing more to adopt.
        drop(pipeline);
        let t = START + 221 * MINUTE;
        rig.predict(5, t, t, 5.0).await;
        let mut pipeline = rig.pipeline(index).await;
        read(&mut pipeline).await.unwrap();
        pipeline.commit().await.unwrap();
        assert_eq!(rig.rows("m_predictions").await.len(), 7);
        assert!(plan(&rig).await.err().unwrap().contains("nothing to adopt"));
        // And once more.
        drop(pipeline);
        rig.make_anew(&[Kind::Outcomes]);
        rig.tick(START + 230 * MINUTE).await;
        let again = plan(&rig).await.unwrap();
        assert!(again.said[0].contains("generation 3 follows 2"), "{:?}", again.said);
        assert_eq!(again.said.iter().filter(|said| said.contains("goes on as it is")).count(), 2);
        again.carry_out().await.unwrap();
        let mut pipeline = rig.pipeline(index).await;
        rig.run(&mut pipeline).await;
        assert_eq!(pipeline.partitions[&0].done_ms, Some(START + 230 * MINUTE));
        assert_eq!((rig.rows("m_predictions").await.len(), rig.rows("m_outcomes").await.len()), (7, 6));
        // The tables are what SQL makes of the raw ones, generations or not.
        if !skipped("tables_go_on_from_topics_that_were_made_anew: the audit") {
            let audit = super::audit::text(&rig, "main", View::Audit, &Options::default()).await.unwrap();
            assert_eq!(ask(&rig, &[audit]), [Vec::<Vec<serde_json::Value>>::new()]);
        }
    }
}

#[tokio::test]
async fn an_adoption_that_was_cut_short_is_finished_by_the_next() {
    let mut rig = Rig::new(1).await;
    let [_, _, open] = first_generation(&rig).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    drop(pipeline);
    rig.make_anew(&BOTH);
    second_generation(&rig, &open).await;
    let tables = plan(&rig).await.unwrap().tables.len();
    assert_eq!(tables, 5);
    for done in 1..tables {
        let mut rest = plan(&rig).await.unwrap();
        if done > 1 {
            assert!(rest.said[0].contains("generation 2 was begun and not finished"), "{:?}", rest.said);
        }
        assert_eq!(rest.tables.len(), tables + 1 - done);
        let (mut table, from, to) = rest.tables.remove(0);
        assert!(table.replace_progress(&from, &to).await.unwrap());
        assert!(table.replace_progress(&from, &to).await.unwrap(), "doing it twice is doing it once");
        assert!(alarm(&rig).await.contains("is not the topic"), "after {done} tables");
    }
    plan(&rig).await.unwrap().carry_out().await.unwrap();
    let mut pipeline = rig.pipeline("a").await;
    assert_eq!(generation::parse(&pipeline.cluster), (rig.shared.cluster.as_str(), 2));
    rig.run(&mut pipeline).await;
    assert_eq!(rig.rows("m_training").await.len(), 4);
    // Somebody was first.
    rig.make_anew(&BOTH);
    let [one, other] = [plan(&rig).await.unwrap(), plan(&rig).await.unwrap()];
    rig.tick(START + 300 * MINUTE).await;
    one.carry_out().await.unwrap();
    drop(pipeline);
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    assert!(other.carry_out().await.unwrap_err().to_string().contains("was committed to meanwhile"));
}

#[tokio::test]
async fn records_that_went_before_they_were_landed_are_passed_once_a_person_says_so() {
    let mut rig = Rig::new(1).await;
    rig.make_anew(&BOTH);
    rig.tick(START).await;
    rig.predict(1, START, START, 1.0).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    drop(pipeline);
    // These go, in whole segments.
    for n in 0..4_u8 {
        let junk = vec![n; 100_000];
        rig.append(Kind::Predictions, 0, START + MINUTE, Some(&junk), &[]).await;
    }
    rig.predict(2, START + 2 * MINUTE, START + 2 * MINUTE, 2.0).await;
    rig.expire(Kind::Predictions, 0);
    rig.predict(3, START + 2 * MINUTE, START + 2 * MINUTE, 3.0).await;
    let said = alarm(&rig).await;
    assert!(said.contains("went before they were landed") && said.contains("adopt"), "{said}");
    let plan = plan(&rig).await.unwrap();
    let lost = plan.said.iter().find(|said| said.contains("are lost; it goes on with the first")).expect("said");
    assert!(lost.contains("predictions, partition 0: "), "{lost}");
    assert!(plan.said.iter().any(|said| said.contains("outcomes, partition 0: goes on as it is")));
    plan.carry_out().await.unwrap();
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let rows = rig.rows("m_predictions").await;
    assert_eq!(rows.last().unwrap()["x"], "Double(4008000000000000)");
    assert!(rig.rows("dead_letter").await.len() < 4, "some of them went");
}

#[tokio::test]
async fn topics_with_another_number_of_partitions_are_not_adopted() {
    let rig = Rig::new(2).await;
    rig.tick(START).await;
    let mut pipeline = rig.pipeline("a").await;
    rig.run(&mut pipeline).await;
    let folder = Folder::new(&rig.dir.path().join("log"));
    for kind in BOTH {
        let place = folder.partition_dir(&wire::topic("flywheel", "m", kind), 2);
        std::fs::create_dir_all(&place).unwrap();
    }
    let said = plan(&rig).await.err().unwrap();
    assert!(said.contains("has 3 partitions") && said.contains("were filled from 2"), "{said}");
    let rig = Rig::new(1).await;
    let said = plan(&rig).await.err().unwrap();
    assert!(said.contains("nothing of a model `m` is landed"), "{said}");
}
