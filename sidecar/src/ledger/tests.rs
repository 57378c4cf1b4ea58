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
    let mut expected = fields.map(|(name, ty)| (name.to_owned(), Shape::Plain(ty), None)).to_vec();
    expected.push(("reason".to_owned(), Shape::Plain(Type::String), Some(0)));
    assert_eq!(found, expected);
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

/// The record of an interval of the old producer.
async fn append(ledger: &Ledger, numbers: RangeInclusive<u64>) {
    let old = OLD.to_string();
    ledger.book.append(&Span::new(&old, "m", Kind::Predictions, numbers, ClosedBy::Interval)).await.unwrap();
}

#[tokio::test]
async fn what_came_after_the_last_interval_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, ledger) = open(dir.path());
    for (first_seq, last_seq) in [(1, 4), (5, 6)] {
        append(&ledger, first_seq..=last_seq).await;
    }
    drop((spool, ledger));
    let (spool, mut ledger) = open(dir.path());
    ledger.recover("m", &note(9)).await.unwrap();
    assert_eq!(ids(&spool)[2..], ["m/predictions/7/9/recovery"]);
    drop((spool, ledger));
    // Nothing new in the spool since the interval's record: the span is empty, and says that no more comes.
    let dir = tempfile::tempdir().unwrap();
    let (spool, mut ledger) = open(dir.path());
    append(&ledger, 1..=4).await;
    ledger.recover("m", &note(4)).await.unwrap();
    assert_eq!(ids(&spool)[1..], ["m/predictions/5/4/recovery"]);
}

/// From accepted to dropped, and the reason: of each record in the spool.
fn counts(spool: &Spool) -> Vec<([i64; 4], Option<String>)> {
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
        // What closed it, and when.
        let (length, rest) = take_long(datum).unwrap();
        datum = &rest[usize::try_from(length).unwrap()..];
        let (_, rest) = take_long(datum).unwrap();
        let (branch, rest) = take_long(rest).unwrap();
        let reason = (branch == 1).then(|| {
            let (length, rest) = take_long(rest).unwrap();
            assert_eq!(rest.len(), usize::try_from(length).unwrap());
            String::from_utf8(rest.to_vec()).unwrap()
        });
        ([longs[2], longs[3], longs[4], longs[5]], reason)
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
    let left_out: Vec<_> = [(3, 0), (2, 0), (0, 1), (2, 0)].map(|(refused, out)| ([0, refused, out, 0], None)).into();
    assert_eq!(counts(&spool), left_out);
    assert_eq!(ids(&spool), vec!["m/predictions/1/0/interval"; 4]);
}

#[tokio::test]
async fn losses_are_records_of_their_own_and_their_end_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, ledger) = open(dir.path());
    append(&ledger, 1..=20).await;
    let loss = |first_seq, last_seq, count, reason| {
        let (kind, producer_id) = (Kind::Predictions, OLD.into_bytes());
        Loss { kind, producer_id, first_seq, last_seq, count, reason }
    };
    let losses = [loss(3, 7, 4, Reason::SpoolFull), loss(9, 9, 1, Reason::Damaged)];
    assert_eq!(ledger.book().lose("m", &losses).await, 2);
    assert_eq!(ids(&spool)[1..], ["m/predictions/3/7/loss", "m/predictions/9/9/loss"]);
    let reason = |reason: &str| Some(reason.to_owned());
    let expected = [([20, 0, 0, 0], None), ([0, 0, 0, 4], reason("spool_full")), ([0, 0, 0, 1], reason("damaged"))];
    assert_eq!(counts(&spool), expected);
    drop((spool, ledger));

    let (spool, mut ledger) = open(dir.path());
    assert_eq!((ledger.book.last_losses("m"), ledger.book.last_accepted("m")), (note(9), note(20)));
    assert_eq!(ledger.book.last_losses("other"), Note::default());
    // A loss closes nothing.
    ledger.recover("m", &note(20)).await.unwrap();
    assert_eq!(ids(&spool)[3..], ["m/predictions/21/20/recovery"]);
    ledger.store().unwrap();
    drop((spool, ledger));
    std::fs::remove_dir_all(dir.path().join(SPOOL)).unwrap();
    let (_spool, ledger) = open(dir.path());
    assert_eq!((ledger.book.last_losses("m"), ledger.book.last_accepted("m")), (note(9), note(20)));
}
