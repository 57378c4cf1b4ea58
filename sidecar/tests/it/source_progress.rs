//! A source of labels says how far it is complete: in every partition of the outcomes, after what was accepted before it.

use flywheel_schemas::gate::GateRecord;
use flywheel_schemas::log::{self, Folder};
use flywheel_schemas::wire;
use flywheel_spool::Reader;

use crate::client::eventually;
use crate::sidecar::{CONTRACT, OUTCOMES, PREDICTIONS, Place, outcome, prediction};

const PATH: &str = "/v1/models/flights/source-progress";

/// What stands in each partition of a topic: a gate record, or none for another.
fn said(place: &Place, topic: &str) -> Vec<Vec<Option<GateRecord>>> {
    let folder = Folder::new(&place.dir.path().join("log"));
    let count = folder.partition_count(topic).unwrap().unwrap_or(0);
    let partition = |number| {
        let mut reader = Reader::open(&folder.partition_dir(topic, number), 0).unwrap();
        let records = reader.read(1 << 20).unwrap();
        let gate = |record: &flywheel_spool::Record| {
            let record = log::decode(&record.payload).unwrap();
            let header = record.headers.into_iter().find(|(name, _)| *name == wire::GATE);
            assert!(header.is_none() || (record.key.is_none() && record.value.is_none()));
            header.map(|(_, text)| GateRecord::from_header(text.unwrap()).unwrap())
        };
        records.iter().map(gate).collect()
    };
    (0..count).map(partition).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_stands_in_every_partition_of_the_outcomes_after_those_before_it() {
    let mut place = Place::new();
    place.contract("flights.yaml", &CONTRACT.replace("default: false}", "default: false, gate: {progress: towers}}"));
    place.config.log.partitions = 3;
    let sidecar = place.start().await;
    let mut client = sidecar.client().await;
    let mut stated = 0;
    for delay in 0..20 {
        let answer = client.post(PREDICTIONS, prediction(delay)).await;
        let id = answer.json()["prediction_id"].as_str().unwrap().to_owned();
        assert_eq!(client.post(OUTCOMES, outcome(&id)).await.status, 202);
        stated += 1;
    }
    let report = |source: &str, time: &str| format!(r#"{{"source":"{source}","complete_through":"{time}"}}"#);
    for (body, status) in [
        (report("radar", "2026-03-01T10:00:00Z"), 400),
        (report("towers", "noon"), 400),
        (r#"{"source":"towers"}"#.to_owned(), 400),
        ("{".to_owned(), 400),
        (report("towers", &"0".repeat(2000)), 413),
    ] {
        assert_eq!(client.post(PATH, body.clone()).await.status, status, "{body}");
    }
    // The last answer closes the connection.
    let mut client = sidecar.client().await;
    let report = report("towers", "2026-03-01T10:00:00.123456Z");
    assert_eq!(client.post("/v1/models/none/source-progress", report.clone()).await.status, 404);
    assert_eq!(client.post(PATH, report).await.status, 202);
    sidecar.stop().await;

    let expected = GateRecord::Progress { source: "towers".to_owned(), complete_through_ms: 1_772_359_200_123 };
    eventually("the report is in the log", async || said(&place, "flywheel.flights.outcomes").len() == 3).await;
    let partitions = said(&place, "flywheel.flights.outcomes");
    for records in &partitions {
        let place = records.iter().position(Option::is_some).expect("a report");
        assert_eq!(records[place], Some(expected.clone()));
        assert_eq!(records.iter().flatten().count(), 1);
    }
    // Ticks may stand anywhere; every outcome stands before the report.
    let before: usize = partitions.iter().map(|records| records.iter().take_while(|said| said.is_none()).count()).sum();
    assert!(before >= stated, "{before} records before it, of {stated} outcomes");
    assert!(said(&place, "flywheel.flights.predictions").iter().flatten().all(Option::is_none));
}
