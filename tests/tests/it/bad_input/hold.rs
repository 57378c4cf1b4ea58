//! A message with a schema id that the registry does not know yet.

use apache_avro::types::Value as Avro;
use flywheel_schemas::avro;
use flywheel_schemas::wire::{self, Kind};
use flywheel_tests::system::until;
use serde_json::{Value, json};

use super::messages::{datum, framed, id_at_home};
use super::{MODEL, PARTITIONS, Run, now_ms, second_version, topic};

/// A message whose schema is registered later: its partition waits, with an alarm, and the others go on. Gives the row
/// of that message.
pub async fn hold_and_release(run: &mut Run, registry: &str) -> Option<(String, Value)> {
    const HELD: i32 = 1;
    let second = second_version();
    let last = run.system.registration.subjects.iter().map(|subject| subject.id).max().unwrap();
    let next = last + 1;
    let known = reqwest::get(format!("{registry}/schemas/ids/{next}")).await.unwrap();
    assert_eq!(known.status().as_u16(), 404, "the registry knows the schema id {next} already");

    let now_ms = now_ms();
    let id = id_at_home(now_ms, HELD, PARTITIONS).to_string();
    let fields = [("count", Avro::Int(2002)), ("extra", Avro::Long(i64::MIN))];
    let value = framed(next, &datum(&second, &id, now_ms * 1000, &fields));
    let offset = run.foreign.put(&topic(Kind::Predictions), HELD, Some(&id), Some(&value)).await;

    // The alarm: in the metrics, in the log, in the status.
    let labels = |home: i32| [("model", MODEL), ("kind", "predictions"), ("partition", ["0", "1", "2"][home as usize])];
    const WAITS: &str = "flywheel_joiner_partition_waits";
    until("the alarm", async || run.system.joiner.metrics().await.sum(WAITS, &labels(HELD)) == 1).await;
    let log = run.system.joiner.log();
    let logged = log.lines().find(|line| line.contains("ERROR") && line.contains("partition waits"));
    assert!(logged.is_some_and(|line| line.contains(&format!("schema id {next}"))), "{log}");
    let status = |run: &Run| run.system.joiner.command("status").unwrap();
    let waits = format!("WAITS: predictions, partition {HELD}, before offset {offset}: schema id {next}: ");
    assert!(status(run).contains(&waits), "{}", status(run));

    // The others go on, the outcomes of the same partition too; what is behind it waits with it. So it is after a new
    // start, which finds all of them on the topic at once.
    let mut behind = Vec::new();
    for is_new_start in [false, true] {
        if is_new_start {
            run.system.joiner.stop().await;
        }
        for home in (0..2 * PARTITIONS).map(|place| place % PARTITIONS) {
            let id = run.neighbour_in(home).await;
            if home == HELD {
                behind.push(id);
            }
        }
        if is_new_start {
            let forwarded = async || {
                let metrics = run.system.sidecar.metrics().await;
                metrics.sum("flywheel_spool_unforwarded_records", &[("spool", MODEL)]) == 0
            };
            until("the forwarding", forwarded).await;
            run.system.joiner.start_again().await.unwrap();
        }
    }
    until("the other partitions", async || run.landed().len() >= run.predictions.len() - behind.len()).await;
    let on_their_way = run.predictions.iter().filter(|(id, _)| !behind.contains(*id));
    let expected: Vec<(String, Value)> = on_their_way.map(|(id, row)| (id.clone(), row.clone())).collect();
    assert_eq!(run.landed(), expected);
    let outcomes = "SELECT count(*) FROM bad_input_outcomes";
    until("all outcomes", async || run.ask(outcomes)[0][0] == run.outcomes.len()).await;
    let metrics = run.system.joiner.metrics().await;
    assert_eq!((0..PARTITIONS).map(|home| metrics.sum(WAITS, &labels(home))).collect::<Vec<_>>(), [0, 1, 0]);

    // Once the schema is there, so is the row, with the column that is new.
    let subject = wire::subject(&topic(Kind::Predictions));
    let given = run.system.registry.register(&subject, &avro::prediction_schema(&second)).await.unwrap();
    assert_eq!(given, next, "the registry no longer counts by one; the test needs another way to know the next id");
    until("the end of the alarm", async || run.system.joiner.metrics().await.sum(WAITS, &labels(HELD)) == 0).await;
    assert!(!status(run).contains("WAITS"), "{}", status(run));
    let extra = format!("SELECT extra, kafka_offset FROM bad_input_predictions WHERE prediction_id = '{id}'");
    until("the row that waited", async || run.landed().iter().any(|(landed, _)| *landed == id)).await;
    assert_eq!(run.ask(&extra), [[json!(i64::MIN), json!(offset)]]);
    Some((id, json!([2002, null, null, null, 2])))
}
