//! A growing Arrow array of one column, built to the exact type that the table has.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int32Builder, Int64Builder, LargeBinaryBuilder, ListArray, NullBufferBuilder, StringBuilder, StructArray,
    TimestampMicrosecondBuilder, new_null_array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};
use arrow::error::ArrowError;
use flywheel_schemas::types::Type;

use super::cursor::Value;

/// One column. A value of another type than the column's is left out, and [`Column::pad`] makes a null of it.
pub(super) enum Column {
    Boolean(BooleanBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(LargeBinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    List(Box<List>),
    Struct(Struct),
    /// A type that no contract has: nulls only.
    Null(DataType, usize),
}

/// Lists over one column of items.
pub(super) struct List {
    field: FieldRef,
    items: Column,
    /// Ends of the lists so far.
    ends: Vec<i32>,
    valid: NullBufferBuilder,
}

pub(super) struct Struct {
    fields: Fields,
    columns: Vec<Column>,
    valid: NullBufferBuilder,
}

impl Column {
    pub(super) fn new(ty: &DataType) -> Column {
        match ty {
            DataType::Boolean => Column::Boolean(BooleanBuilder::new()),
            DataType::Int32 => Column::Int(Int32Builder::new()),
            DataType::Int64 => Column::Long(Int64Builder::new()),
            DataType::Float32 => Column::Float(Float32Builder::new()),
            DataType::Float64 => Column::Double(Float64Builder::new()),
            DataType::Decimal128(..) => Column::Decimal(Decimal128Builder::new().with_data_type(ty.clone())),
            DataType::Utf8 => Column::Text(StringBuilder::new()),
            DataType::LargeBinary => Column::Bytes(LargeBinaryBuilder::new()),
            DataType::Date32 => Column::Date(Date32Builder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Column::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(ty.clone()))
            }
            DataType::List(field) => Column::List(Box::new(List {
                field: field.clone(),
                items: Column::new(field.data_type()),
                ends: Vec::new(),
                valid: NullBufferBuilder::new(0),
            })),
            DataType::Struct(fields) => Column::Struct(Struct {
                fields: fields.clone(),
                columns: fields.iter().map(|field| Column::new(field.data_type())).collect(),
                valid: NullBufferBuilder::new(0),
            }),
            other => Column::Null(other.clone(), 0),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Column::Boolean(builder) => builder.len(),
            Column::Int(builder) => builder.len(),
            Column::Long(builder) => builder.len(),
            Column::Float(builder) => builder.len(),
            Column::Double(builder) => builder.len(),
            Column::Decimal(builder) => builder.len(),
            Column::Text(builder) => builder.len(),
            Column::Bytes(builder) => builder.len(),
            Column::Date(builder) => builder.len(),
            Column::Timestamp(builder) => builder.len(),
            Column::List(list) => list.ends.len(),
            Column::Struct(structs) => structs.valid.len(),
            Column::Null(_, length) => *length,
        }
    }

    #[inline]
    pub(super) fn append(&mut self, value: Value) {
        match (self, value) {
            (Column::Boolean(builder), Value::Boolean(value)) => builder.append_value(value),
            (Column::Int(builder), Value::Int(value)) => builder.append_value(value),
            (Column::Long(builder), Value::Long(value)) => builder.append_value(value),
            (Column::Float(builder), Value::Float(value)) => builder.append_value(value),
            (Column::Double(builder), Value::Double(value)) => builder.append_value(value),
            (Column::Decimal(builder), Value::Decimal(value)) => builder.append_value(value),
            (Column::Text(builder), Value::Text(value)) => builder.append_value(value),
            (Column::Bytes(builder), Value::Bytes(value)) => builder.append_value(value),
            (Column::Date(builder), Value::Date(value)) => builder.append_value(value),
            (Column::Timestamp(builder), Value::Timestamp(value)) => builder.append_value(value),
            _ => {}
        }
    }

    /// An item of the list that is being built.
    pub(super) fn append_item(&mut self, value: Value) {
        if let Column::List(list) = self {
            list.items.append(value);
        }
    }

    /// A field of the struct that is being built in the list that is being built.
    pub(super) fn append_item_field(&mut self, field: usize, value: Value) {
        if let Column::List(list) = self
            && let Column::Struct(structs) = &mut list.items
            && let Some(column) = structs.columns.get_mut(field)
        {
            column.append(value);
        }
    }

    pub(super) fn end_item(&mut self) {
        if let Column::List(list) = self
            && let Column::Struct(structs) = &mut list.items
        {
            let length = structs.valid.len() + 1;
            structs.columns.iter_mut().for_each(|column| column.pad(length));
            structs.valid.append_non_null();
        }
    }

    pub(super) fn end_list(&mut self) {
        if let Column::List(list) = self {
            list.end(true);
        }
    }

    /// Appends a null unless the column has `length` values.
    pub(super) fn pad(&mut self, length: usize) {
        if self.len() >= length {
            return;
        }
        match self {
            Column::Boolean(builder) => builder.append_null(),
            Column::Int(builder) => builder.append_null(),
            Column::Long(builder) => builder.append_null(),
            Column::Float(builder) => builder.append_null(),
            Column::Double(builder) => builder.append_null(),
            Column::Decimal(builder) => builder.append_null(),
            Column::Text(builder) => builder.append_null(),
            Column::Bytes(builder) => builder.append_null(),
            Column::Date(builder) => builder.append_null(),
            Column::Timestamp(builder) => builder.append_null(),
            Column::List(list) => list.end(false),
            Column::Struct(structs) => {
                structs.columns.iter_mut().for_each(|column| column.pad(length));
                structs.valid.append_null();
            }
            Column::Null(_, length) => *length += 1,
        }
    }

    /// The array so far; the column is empty again.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Column::Boolean(builder) => Arc::new(builder.finish()),
            Column::Int(builder) => Arc::new(builder.finish()),
            Column::Long(builder) => Arc::new(builder.finish()),
            Column::Float(builder) => Arc::new(builder.finish()),
            Column::Double(builder) => Arc::new(builder.finish()),
            Column::Decimal(builder) => Arc::new(builder.finish()),
            Column::Text(builder) => Arc::new(builder.finish()),
            Column::Bytes(builder) => Arc::new(builder.finish()),
            Column::Date(builder) => Arc::new(builder.finish()),
            Column::Timestamp(builder) => Arc::new(builder.finish()),
            Column::List(list) => {
                let mut offsets = Vec::with_capacity(list.ends.len() + 1);
                offsets.push(0);
                offsets.append(&mut list.ends);
                let items = list.items.finish()?;
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(ListArray::try_new(list.field.clone(), offsets, items, list.valid.finish())?)
            }
            Column::Struct(structs) => {
                let arrays = structs.columns.iter_mut().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
                let (length, valid) = (structs.valid.len(), structs.valid.finish());
                Arc::new(StructArray::try_new_with_length(structs.fields.clone(), arrays, valid, length)?)
            }
            Column::Null(ty, length) => new_null_array(ty, std::mem::take(length)),
        })
    }
}

impl List {
    fn end(&mut self, valid: bool) {
        // Items are fewer than the bytes of a batch, which `Rows` keeps below 31 bits.
        self.ends.push(i32::try_from(self.items.len()).unwrap_or(i32::MAX));
        self.valid.append(valid);
    }
}

/// Whether values of the declared type `ty` are values of the Arrow type `arrow`.
pub(super) fn holds(arrow: &DataType, ty: &Type) -> bool {
    match (ty, arrow) {
        (Type::Boolean, DataType::Boolean)
        | (Type::Int, DataType::Int32)
        | (Type::Long, DataType::Int64)
        | (Type::Float, DataType::Float32)
        | (Type::Double, DataType::Float64)
        | (Type::String | Type::Uuid, DataType::Utf8)
        | (Type::Bytes, DataType::LargeBinary)
        | (Type::Date, DataType::Date32)
        | (Type::Timestamp, DataType::Timestamp(TimeUnit::Microsecond, Some(_))) => true,
        (Type::Decimal { precision, scale }, DataType::Decimal128(wide, to)) => {
            precision <= wide && i8::try_from(*scale) == Ok(*to)
        }
        (Type::List(item), DataType::List(field)) => holds(field.data_type(), item),
        _ => false,
    }
}
