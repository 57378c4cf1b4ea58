//! Copies of a prediction: which came first, and whether the others say the same.
//!
//! A re-sent record is the same row under other coordinates. One that differs in anything else is a
//! `conflicting_duplicate`: the first copy is sealed all the same, and the conflict is counted, once per copy, namely
//! at the tick that would have sealed that copy had it been the first.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::array::{Array, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::row::{RowConverter, SortField};
use futures::TryStreamExt;

use super::{Id, Span};
use crate::letters::column;
use crate::map::HashMap;
use crate::pipeline::{Pipeline, PipelineError};
use crate::table::Predicate;

/// Where a copy was found and who sent it: in these, copies may differ.
const COORDINATES: [&str; 5] = ["ingest_time", "kafka_partition", "kafka_offset", "producer_id", "producer_seq"];

/// A copy of a prediction, as far as its tick depends on it. Copies have the id and the event time in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Copy {
    pub ingest_ms: i64,
    pub offset: i64,
    pub event_ms: i64,
    pub partition: i32,
    pub version: i32,
}

impl Copy {
    /// All copies of an id are in one partition: that of its key.
    pub fn place(&self) -> (i32, i64) {
        (self.partition, self.offset)
    }

    fn came_before(&self, other: &Copy) -> bool {
        (self.ingest_ms, self.offset) < (other.ingest_ms, other.offset)
    }
}

/// The copies that were seen, by prediction: an id of its own choice may be given again, to a prediction of another event
/// time. A copy that is seen again changes nothing.
#[derive(Default)]
pub(crate) struct Seen {
    firsts: HashMap<Id, Copy>,
    /// Predictions whose id another one, of another event time, was seen with before.
    again: BTreeMap<(Id, i64), Copy>,
    /// The copies after the first, by id; most ids have none.
    others: HashMap<String, HashSet<Copy>>,
}

impl Seen {
    pub fn add(&mut self, id: &str, copy: Copy) {
        let mut first = match self.firsts.entry(Id::of(id)) {
            Entry::Vacant(place) => {
                place.insert(copy);
                return;
            }
            Entry::Occupied(first) => first.into_mut(),
        };
        if first.event_ms != copy.event_ms {
            first = self.again.entry((Id::of(id), copy.event_ms)).or_insert_with(|| copy.clone());
        }
        if first.place() != copy.place() {
            let other = if copy.came_before(first) { std::mem::replace(first, copy) } else { copy };
            self.others.entry(id.to_owned()).or_default().insert(other);
        }
    }

    /// The first copies of the predictions of an id.
    pub fn of(&self, id: &str) -> impl Iterator<Item = &Copy> {
        let id = Id::of(id);
        let first = self.firsts.get(&id);
        let range = || self.again.range((id.clone(), i64::MIN)..=(id, i64::MAX));
        let again = (!self.again.is_empty()).then(range).into_iter().flatten();
        first.into_iter().chain(again.map(|(_, copy)| copy))
    }

    /// The first copy of the prediction of an id and an event time.
    fn first(&self, id: &str, event_ms: i64) -> Option<&Copy> {
        self.of(id).find(|first| first.event_ms == event_ms)
    }

    pub fn firsts(&self) -> impl Iterator<Item = (&Id, &Copy)> {
        let again = self.again.iter().map(|((id, _), first)| (id, first));
        self.firsts.iter().chain(again)
    }
}

/// Copies that do not say what the first one says.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    pub count: u64,
    /// The least of their ids.
    pub example: Option<String>,
}

impl Pipeline {
    /// Compares those copies with their firsts that would be sealed in these spans. Reads the rows once more, but only
    /// where there are copies at all.
    pub(super) async fn conflicts(&self, spans: &BTreeMap<i32, Span>, seen: &Seen) -> Result<Conflicts, PipelineError> {
        let mut doubtful: HashMap<&str, Vec<&Copy>> = HashMap::default();
        for (id, others) in &seen.others {
            for copy in others {
                if self.as_of_within(spans, copy)?.is_some() {
                    doubtful.entry(id).or_default().push(copy);
                }
            }
        }
        let times = || doubtful.values().flatten().map(|copy| copy.event_ms);
        let (Some(least), Some(greatest)) = (times().min(), times().max()) else { return Ok(Conflicts::default()) };
        let predicate = Predicate::EventTimeBetween(least, greatest + 1);
        let table = &self.landings.predictions.table;
        let schema = table.arrow_schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut contents = Contents::default();
        let mut stream = Box::pin(table.scan(&columns, predicate).await?);
        while let Some(batch) = stream.try_next().await? {
            contents.add(&batch, &doubtful)?;
        }
        let mut conflicts = Conflicts::default();
        for (id, copies) in doubtful {
            let content = |copy: &Copy| contents.0.get(&copy.place());
            let first = |copy: &Copy| seen.first(id, copy.event_ms).and_then(content);
            let differs = |copy: &&&Copy| content(copy).zip(first(copy)).is_some_and(|(other, first)| other != first);
            let differ = copies.iter().filter(differs).count() as u64;
            conflicts.count += differ;
            if differ > 0 && conflicts.example.as_deref().is_none_or(|example| id < example) {
                conflicts.example = Some(id.to_owned());
            }
        }
        Ok(conflicts)
    }
}

/// A hash of what rows say, by place. Of 64 bits: two contents with one hash would go uncounted, no more.
#[derive(Default)]
struct Contents(HashMap<(i32, i64), u64>);

impl Contents {
    fn add(&mut self, batch: &RecordBatch, ids: &HashMap<&str, Vec<&Copy>>) -> Result<(), PipelineError> {
        let wanted: BooleanArray =
            Copies::of(batch)?.ids.iter().map(|id| Some(id.is_some_and(|id| ids.contains_key(id)))).collect();
        let batch = filter_record_batch(batch, &wanted).map_err(PipelineError::decode)?;
        let schema = batch.schema();
        let fields = schema.fields().iter().zip(batch.columns());
        let told = fields.filter(|(field, _)| !COORDINATES.contains(&field.name().as_str()));
        let columns: Vec<_> = told.map(|(_, column)| column.clone()).collect();
        let types = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let rows = RowConverter::new(types).and_then(|converter| converter.convert_columns(&columns));
        let rows = rows.map_err(PipelineError::decode)?;
        let copies = Copies::of(&batch)?;
        for (number, row) in rows.iter().enumerate() {
            let mut hasher = DefaultHasher::new();
            row.as_ref().hash(&mut hasher);
            self.0.insert(copies.copy(number).place(), hasher.finish());
        }
        Ok(())
    }
}

/// The columns by which a copy is judged, of one batch.
pub(crate) struct Copies<'a> {
    pub ids: &'a StringArray,
    pub event_times: &'a TimestampMicrosecondArray,
    pub ingest_times: &'a TimestampMicrosecondArray,
    pub partitions: &'a Int32Array,
    pub offsets: &'a Int64Array,
    pub versions: &'a Int32Array,
    pub exposures: &'a StringArray,
}

impl<'a> Copies<'a> {
    pub const COLUMNS: [&'static str; 7] = [
        "prediction_id",
        "event_time",
        "ingest_time",
        "kafka_partition",
        "kafka_offset",
        "contract_version",
        "exposure",
    ];

    pub fn of(batch: &'a RecordBatch) -> Result<Copies<'a>, PipelineError> {
        Ok(Copies {
            ids: column(batch, "prediction_id")?,
            event_times: column(batch, "event_time")?,
            ingest_times: column(batch, "ingest_time")?,
            partitions: column(batch, "kafka_partition")?,
            offsets: column(batch, "kafka_offset")?,
            versions: column(batch, "contract_version")?,
            exposures: column(batch, "exposure")?,
        })
    }

    pub fn copy(&self, row: usize) -> Copy {
        Copy {
            ingest_ms: self.ingest_times.value(row).div_euclid(1000),
            offset: self.offsets.value(row),
            event_ms: self.event_times.value(row).div_euclid(1000),
            partition: self.partitions.value(row),
            version: self.versions.value(row),
        }
    }
}
