//! Rows of one raw table, growing column by column.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};

use super::column::{Column, holds};
use super::cursor::Value;
use super::plan::{LeafShape, Plan, Sink};
use super::{DecodeError, Decoder, Origin};

/// The most bytes, as [`Rows::bytes`] counts them, that one batch takes: text and list offsets are 31 bits wide. A
/// caller cuts far below it.
pub const ROWS_BYTES_MAX: usize = 1 << 30;

/// How many schemas a batch remembers the way of; past it the ways are found anew.
const WAYS_MAX: usize = 32;

/// Column builders for one table's schema, as the table gives it: the batches have exactly that schema.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    origin: OriginColumns,
    ways: Vec<(Arc<Plan>, Way)>,
    length: usize,
    pub(super) bytes: usize,
    overfull: bool,
}

/// The columns that the origin fills.
struct OriginColumns {
    ingest_time: Option<usize>,
    partition: Option<usize>,
    offset: Option<usize>,
    producer_id: Option<usize>,
    producer_seq: Option<usize>,
}

/// Where the leaves of a plan go: by leaf its column, and for a list of records the fields' places in the struct.
struct Way {
    columns: Vec<Option<usize>>,
    fields: Vec<Vec<Option<usize>>>,
}

impl Rows {
    pub fn new(schema: SchemaRef) -> Rows {
        let column = |name| schema.index_of(name).ok();
        Rows {
            origin: OriginColumns {
                ingest_time: column("ingest_time"),
                partition: column("kafka_partition"),
                offset: column("kafka_offset"),
                producer_id: column("producer_id"),
                producer_seq: column("producer_seq"),
            },
            columns: schema.fields().iter().map(|field| Column::new(field.data_type())).collect(),
            schema,
            ways: Vec::new(),
            length: 0,
            bytes: 0,
            overfull: false,
        }
    }

    /// Whether every value that `decoder` finds has a column of its type. To be asked once per schema and table:
    /// what has none would be left out by [`Rows::push`].
    ///
    /// # Errors
    /// [`DecodeError::NoColumn`] where the table has yet to be given a column, [`DecodeError::Column`] where the
    /// table's is of another type, [`DecodeError::Optional`] where a [plain](Decoder::plain) schema may lack what a row
    /// needs.
    pub fn fits(&self, decoder: &Decoder) -> Result<(), DecodeError> {
        for leaf in &decoder.plan.leaves {
            let Some(column) = &leaf.column else { continue };
            let field = self.schema.field_with_name(column).map_err(|_| DecodeError::NoColumn(column.clone()))?;
            if !takes(field.data_type(), &leaf.shape) {
                return Err(DecodeError::Column {
                    column: column.clone(),
                    expected: format!("{:?}", leaf.shape),
                    found: field.data_type().to_string(),
                });
            }
        }
        // Of the records of models, `check` sees to the values that each row needs.
        let missing = self.schema.fields().iter().find(|field| {
            !field.is_nullable()
                && !decoder.plan.leaves.iter().any(|leaf| leaf.always && leaf.column.as_ref() == Some(field.name()))
        });
        match missing.filter(|_| decoder.plan.kind.is_none()) {
            Some(field) => Err(DecodeError::Optional(field.name().clone())),
            None => Ok(()),
        }
    }

    /// Appends the row of a datum that [`Decoder::check`] has passed. Of one that has not, the row is null from the
    /// fault on.
    pub fn push(&mut self, decoder: &Decoder, datum: &[u8], origin: &Origin) {
        // The fixed part of a row: the columns of the origin.
        let bytes = datum.len() + origin.producer_id.map_or(0, str::len) + 32;
        if self.bytes + bytes > ROWS_BYTES_MAX {
            self.overfull = true;
            return;
        }
        let way = self.way(&decoder.plan);
        let mut filling = Filling { columns: &mut self.columns, way: &self.ways[way].1 };
        // Checked before; and if it was not, the padding keeps the columns even.
        let _ = decoder.plan.walk(datum, &mut filling);

        if decoder.plan.kind.is_some() {
            self.append_origin(origin);
        }
        self.length += 1;
        self.columns.iter_mut().for_each(|column| column.pad(self.length));
        self.bytes += bytes;
    }

    fn append_origin(&mut self, origin: &Origin) {
        let OriginColumns { ingest_time, partition, offset, producer_id, producer_seq } = self.origin;
        for (column, value) in [
            (ingest_time, Some(Value::Timestamp(origin.ingest_time_ms.saturating_mul(1000)))),
            (partition, Some(Value::Int(origin.partition))),
            (offset, Some(Value::Long(origin.offset))),
            (producer_id, origin.producer_id.map(Value::Text)),
            (producer_seq, origin.producer_seq.map(Value::Long)),
        ] {
            if let (Some(column), Some(value)) = (column, value) {
                self.columns[column].append(value);
            }
        }
    }

    /// Rows since the last [`Rows::finish`].
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes of the datums and origins since the last [`Rows::finish`]; the arrays take about as many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows as a batch of the table's schema; there are none afterwards.
    ///
    /// # Errors
    /// [`DecodeError::Overfull`] when more was pushed than a batch takes; [`DecodeError::Batch`] when a required
    /// column had no value, which happens where a datum was not checked or a schema does not fit. The rows are gone.
    pub fn finish(&mut self) -> Result<RecordBatch, DecodeError> {
        self.length = 0;
        self.bytes = 0;
        let arrays: Vec<_> = self.columns.iter_mut().map(Column::finish).collect();
        if std::mem::take(&mut self.overfull) {
            return Err(DecodeError::Overfull);
        }
        let arrays = arrays.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(self.schema.clone(), arrays)?)
    }

    /// The number of the plan's way, found once per plan.
    fn way(&mut self, plan: &Arc<Plan>) -> usize {
        if let Some(known) = self.ways.iter().position(|(known, _)| Arc::ptr_eq(known, plan)) {
            return known;
        }
        if self.ways.len() == WAYS_MAX {
            self.ways.clear();
        }
        let way = Way::find(&self.schema, plan);
        self.ways.push((plan.clone(), way));
        self.ways.len() - 1
    }
}

impl Way {
    fn find(schema: &Schema, plan: &Plan) -> Way {
        let columns = plan.leaves.iter().map(|leaf| {
            let index = schema.index_of(leaf.column.as_deref()?).ok()?;
            takes(schema.field(index).data_type(), &leaf.shape).then_some(index)
        });
        let columns: Vec<Option<usize>> = columns.collect();
        let fields = plan.leaves.iter().zip(&columns).map(|(leaf, column)| match (&leaf.shape, column) {
            (LeafShape::Records(fields), Some(column)) => {
                let place = |name: &str| struct_fields(schema.field(*column).data_type())?.find(name).map(|(i, _)| i);
                fields.iter().map(|(name, _)| place(name)).collect()
            }
            _ => Vec::new(),
        });
        Way { fields: fields.collect(), columns }
    }
}

/// Whether a column of type `arrow` takes the values of a leaf. Of a record in a list, fields that the table lacks
/// are left out.
fn takes(arrow: &DataType, shape: &LeafShape) -> bool {
    match shape {
        LeafShape::Scalar(ty) => holds(arrow, ty),
        LeafShape::List(item) => matches!(arrow, DataType::List(field) if holds(field.data_type(), item)),
        LeafShape::Records(fields) => struct_fields(arrow).is_some_and(|known| {
            fields.iter().all(|(name, ty)| known.find(name).is_none_or(|(_, field)| holds(field.data_type(), ty)))
        }),
    }
}

/// The fields of a list of structs.
fn struct_fields(arrow: &DataType) -> Option<&arrow::datatypes::Fields> {
    match arrow {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

/// Fills the columns of one row.
struct Filling<'r> {
    columns: &'r mut [Column],
    way: &'r Way,
}

impl Filling<'_> {
    fn column(&mut self, leaf: usize) -> Option<&mut Column> {
        self.way.columns[leaf].map(|column| &mut self.columns[column])
    }
}

impl<'d> Sink<'d> for Filling<'_> {
    fn scalar(&mut self, leaf: usize, value: Value<'d>) {
        if let Some(column) = self.column(leaf) {
            column.append(value);
        }
    }

    fn item(&mut self, leaf: usize, value: Value<'d>) {
        if let Some(column) = self.column(leaf) {
            column.append_item(value);
        }
    }

    fn item_field(&mut self, leaf: usize, field: usize, value: Value<'d>) {
        let place = self.way.fields[leaf].get(field).copied().flatten();
        if let (Some(place), Some(column)) = (place, self.column(leaf)) {
            column.append_item_field(place, value);
        }
    }

    fn end_record(&mut self, leaf: usize) {
        if let Some(column) = self.column(leaf) {
            column.end_item();
        }
    }

    fn end_list(&mut self, leaf: usize) {
        if let Some(column) = self.column(leaf) {
            column.end_list();
        }
    }
}
