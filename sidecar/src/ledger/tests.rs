use flywheel_schemas::avro::{Layout, Shape};
use flywheel_schemas::contract::Contract;
use flywheel_schemas::types::Type;
use flywheel_spool::Options;

use super::*;
use crate::models::Version;
use crate::record::ProducerSeq;
use crate::transcode::Local;
use crate::transcode::avro::take_long;

const OLD: Uuid = Uuid::from_u128(1);

#[test]
fn the_schema_has_the_fields_that_are_written() {
    let layout = Layout::parse(&ledger_schema()).unwrap();
    let long = |name| (name, Type::Long);
    let fields = [
        ("producer_id", Type::String),
        ("model", Type::String),
        ("kind", Type::String),
        long("first_seq"),
        long("last_seq"),
        long("accepted"),
        long("refused"),
        long("sampled_out"),
        long("dropped"),
        ("closed_by", Type::String),
        ("at", Type::Timestamp),
    ];
    let found: Vec<_> = layout.fields.into_iter().map(|field| (field.name, field.shape, field.null_branch)).collect();
    assert_eq!(found, fields.map(|(name, ty)| (name.to_owned(), Shape::Plain(ty), None)));
}

fn open(dir: &Path) -> (Spool, Ledger) {
    let spool = Spool::open(&dir.join(SPOOL), Options::default()).unwrap();
    let ledger = Ledger::open(dir, spool.clone(), Uuid::new_v4(), Arc::new(Metrics::new())).unwrap();
    (spool, ledger)
}

/// The ids of the records in the spool, from the model to what closed them.
fn ids(spool: &Spool) -> Vec<String> {
    let records = spool.reader(0).read(1 << 20).unwrap();
    let ids = records.iter().map(|record| Envelope::read(&record.payload).unwrap().event_id.to_vec());
    let from_model = |id: &str| id.split('/').skip(2).collect::<Vec<_>>().join("/");
    ids.map(|id| from_model(str::from_utf8(&id).unwrap())).collect()
}

fn note(seq: u64) -> Note {
    Note { predictions: Some(ProducerSeq { producer_id: OLD.into_bytes(), producer_seq: seq }), ..Note::default() }
}

#[tokio::test]
async fn a_predecessor_is_closed_once_from_where_its_ledger_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, mut ledger) = open(dir.path());
    ledger.recover("m", &note(7)).await.unwrap();
    assert_eq!(ids(&spool), ["m/predictions/1/7/recovery"]);
    // The process dies here: the file is not written, but the spool has the record.
    drop((spool, ledger));

    let (spool, mut ledger) = open(dir.path());
    ledger.recover("m", &note(7)).await.unwrap();
    assert_eq!(ids(&spool).len(), 1);
    ledger.store().unwrap();
    drop((spool, ledger));

    // The records of the ledger are forwarded and gone; the file has them.
    std::fs::remove_dir_all(dir.path().join(SPOOL)).unwrap();
    let (spool, mut ledger) = open(dir.path());
    ledger.recover("m", &note(7)).await.unwrap();
    assert_eq!(ids(&spool), Vec::<String>::new());
}

#[tokio::test]
async fn what_came_after_the_last_interval_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, mut ledger) = open(dir.path());
    for (first_seq, last_seq) in [(1, 4), (5, 6)] {
        let closed_by = ClosedBy::Interval;
        let (model, kind) = ("m", Kind::Predictions);
        let span = Span {
            producer_id: &OLD.to_string(),
            model,
            kind,
            first_seq,
            last_seq,
            refused: 0,
            sampled_out: 0,
            closed_by,
        };
        ledger.append(&span).await.unwrap();
    }
    drop((spool, ledger));
    let (spool, mut ledger) = open(dir.path());
    ledger.recover("m", &note(9)).await.unwrap();
    assert_eq!(ids(&spool)[2..], ["m/predictions/7/9/recovery"]);
    drop((spool, ledger));
    // Nothing new in the spool since the interval's record: the span is empty, and says that no more comes.
    let dir = tempfile::tempdir().unwrap();
    let (spool, mut ledger) = open(dir.path());
    let (model, kind, closed_by) = ("m", Kind::Predictions, ClosedBy::Interval);
    let span = Span {
        producer_id: &OLD.to_string(),
        model,
        kind,
        first_seq: 1,
        last_seq: 4,
        refused: 0,
        sampled_out: 0,
        closed_by,
    };
    ledger.append(&span).await.unwrap();
    ledger.recover("m", &note(4)).await.unwrap();
    assert_eq!(ids(&spool)[1..], ["m/predictions/5/4/recovery"]);
}

/// Refused, sampled out: of each record in the spool.
fn left_out(spool: &Spool) -> Vec<(i64, i64)> {
    let records = spool.reader(0).read(1 << 20).unwrap();
    let counts = records.iter().map(|record| {
        let mut datum = Envelope::read(&record.payload).unwrap().datum;
        for _ in 0..3 {
            let (length, rest) = take_long(datum).unwrap();
            datum = &rest[usize::try_from(length).unwrap()..];
        }
        let mut longs = [0; 6];
        for long in &mut longs {
            (*long, datum) = take_long(datum).unwrap();
        }
        (longs[3], longs[4])
    });
    counts.collect()
}

#[tokio::test]
async fn an_interval_in_which_only_refusals_grew_is_recorded_and_one_in_which_nothing_did_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, mut ledger) = open(dir.path());
    let metrics = Metrics::new();
    let contract = Contract::parse("apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\n").unwrap();
    let rows = Spool::open(&dir.path().join("m"), Options::default()).unwrap();
    let version = Version::prepare(contract, Local::default(), &rows).unwrap();
    let model = Arc::new(Model::new("m", [0; 16], rows, 1 << 20, version, &metrics, None));
    let models = [model.clone()];
    let lane = model.lane(Kind::Predictions);
    for (refused, sampled_out) in [(3, 0), (0, 0), (2, 0), (0, 1), (2, 0)] {
        (0..refused).for_each(|_| lane.refuse(&metrics, "m", Kind::Predictions, "invalid_json"));
        (0..sampled_out).for_each(|_| lane.leave_out());
        ledger.write(&models, ClosedBy::Interval).await;
    }
    assert_eq!(left_out(&spool), [(3, 0), (2, 0), (0, 1), (2, 0)]);
    assert_eq!(ids(&spool), vec!["m/predictions/1/0/interval"; 4]);
}
