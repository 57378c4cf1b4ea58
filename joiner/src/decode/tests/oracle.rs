//! Random contracts and rows, apache-avro as the writer, and what must be found in the columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use apache_avro::Schema as AvroSchema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use flywheel_schemas::avro::{LayoutField, Shape};
use flywheel_schemas::contract::{Block, Contract, Field, Label, LabelOwner, Privacy, Scalar};
use flywheel_schemas::table::{self, ColumnType, Table};
use flywheel_schemas::types::Type;
use iceberg::spec::{ListType, NestedField, PrimitiveType, Schema as IcebergSchema, StructType, Type as IcebergType};
use proptest::prelude::*;

use super::super::statement::cell;
use crate::label::tests::contract as bare;
use flywheel_schemas::avro::Layout;
use flywheel_schemas::contract::Aggregate;

/// A value of a field.
#[derive(Debug, Clone)]
pub(crate) enum Given {
    Scalar(Scalar),
    List(Vec<Scalar>),
    Records(Vec<Vec<Option<Scalar>>>),
}

/// The values of a record by dotted path; what is not in it is null.
pub(crate) type Record = BTreeMap<String, Given>;

impl Given {
    /// As text with every bit of a float in it.
    pub(super) fn bits(&self) -> String {
        match self {
            Given::Scalar(value) => scalar_bits(value),
            Given::List(items) => format!("{:?}", items.iter().map(scalar_bits).collect::<Vec<_>>()),
            Given::Records(items) => {
                let fields = |item: &Vec<Option<Scalar>>| item.iter().map(|v| v.as_ref().map(scalar_bits)).collect();
                format!("{:?}", items.iter().map(fields).collect::<Vec<Vec<_>>>())
            }
        }
    }
}

pub(crate) fn scalar_bits(value: &Scalar) -> String {
    match value {
        Scalar::Float(value) => format!("Float({:x})", value.to_bits()),
        Scalar::Double(value) => format!("Double({:x})", value.to_bits()),
        // Tables hold a uuid as text.
        Scalar::Uuid(value) => format!("String({value:?})"),
        other => format!("{other:?}"),
    }
}

fn scalar_type() -> impl Strategy<Value = Type> {
    prop_oneof![
        Just(Type::Boolean),
        Just(Type::Int),
        Just(Type::Long),
        Just(Type::Float),
        Just(Type::Double),
        (1..=38_u8)
            .prop_flat_map(|precision| (Just(precision), 0..=precision))
            .prop_map(|(precision, scale)| Type::Decimal { precision, scale }),
        Just(Type::String),
        Just(Type::Bytes),
        Just(Type::Date),
        Just(Type::Timestamp),
        Just(Type::Uuid),
    ]
}

fn any_type() -> impl Strategy<Value = Type> {
    prop_oneof![
        3 => scalar_type(),
        1 => scalar_type().prop_map(|item| Type::List(Box::new(item))),
    ]
}

fn scalar_of(ty: &Type) -> BoxedStrategy<Scalar> {
    match ty {
        Type::Boolean => any::<bool>().prop_map(Scalar::Boolean).boxed(),
        Type::Int => any::<i32>().prop_map(Scalar::Int).boxed(),
        Type::Long => any::<i64>().prop_map(Scalar::Long).boxed(),
        Type::Float => any::<u32>().prop_map(|bits| Scalar::Float(f32::from_bits(bits))).boxed(),
        Type::Double => any::<u64>().prop_map(|bits| Scalar::Double(f64::from_bits(bits))).boxed(),
        Type::Decimal { precision, .. } => {
            let most = 10_i128.pow(u32::from(*precision)) - 1;
            prop_oneof![-most..=most, Just(most), Just(-most), Just(0), Just(most / 1000), Just(-128), Just(-129)]
                .prop_map(move |value| Scalar::Decimal(value.clamp(-most, most)))
                .boxed()
        }
        Type::String => ".{0,6}".prop_map(Scalar::String).boxed(),
        Type::Bytes => proptest::collection::vec(any::<u8>(), 0..6).prop_map(Scalar::Bytes).boxed(),
        Type::Date => super::super::DAYS.prop_map(Scalar::Date).boxed(),
        Type::Timestamp => super::super::TIME_US.prop_map(Scalar::Timestamp).boxed(),
        Type::Uuid => any::<u128>().prop_map(|bits| Scalar::Uuid(uuid::Uuid::from_u128(bits).to_string())).boxed(),
        Type::List(_) => unreachable!(),
    }
}

fn given(ty: &Type) -> BoxedStrategy<Given> {
    match ty {
        Type::List(item) => proptest::collection::vec(scalar_of(item), 0..4).prop_map(Given::List).boxed(),
        _ => scalar_of(ty).prop_map(Given::Scalar).boxed(),
    }
}

/// A contract with up to three fields per block and up to five labels.
pub(super) fn contracts() -> impl Strategy<Value = Contract> {
    let blocks = proptest::collection::vec(proptest::collection::vec(any_type(), 0..4), 5);
    (blocks, proptest::collection::vec(scalar_type(), 0..6)).prop_map(|(blocks, labels)| {
        let fields = |block: Block, types: &Vec<Type>| -> Vec<Field> {
            types.iter().enumerate().map(|(n, ty)| field(&format!("{}{n}", block.name()), ty.clone())).collect()
        };
        let [entity, features, prediction, decision, context] = Block::ALL.map(|block| {
            let index = Block::ALL.iter().position(|other| *other == block).unwrap();
            fields(block, &blocks[index])
        });
        let labels = labels.into_iter().enumerate().map(|(n, ty)| label(&format!("l{n}"), ty)).collect();
        Contract { entity, features, prediction, decision, context, ..bare(labels) }
    })
}

pub(super) fn field(name: &str, ty: Type) -> Field {
    Field {
        name: name.to_owned(),
        ty,
        required: false,
        unit: None,
        description: None,
        kind: None,
        privacy: Privacy::None,
        expect: None,
        view: None,
    }
}

pub(super) fn label(name: &str, ty: Type) -> Label {
    Label {
        name: name.to_owned(),
        ty,
        description: None,
        unit: None,
        window_ms: 1,
        lateness_ms: 0,
        aggregate: Aggregate::Last,
        default: None,
        requires: None,
        owner: LabelOwner::Streaming,
        gate: None,
    }
}

/// Records of a layout that may be landed; `rare` null where a row needs a value is not among them.
pub(super) fn records(layout: &Layout) -> BoxedStrategy<Record> {
    let mut fields: Vec<BoxedStrategy<Option<(String, Given)>>> = Vec::new();
    for top in &layout.fields {
        match &top.shape {
            Shape::Record(record) => {
                fields.extend(record.fields.iter().map(|field| one(&format!("{}.{}", top.name, field.name), field)));
            }
            _ => fields.push(one(&top.name, top)),
        }
    }
    fields.prop_map(|fields| fields.into_iter().flatten().collect()).boxed()
}

fn one(path: &str, field: &LayoutField) -> BoxedStrategy<Option<(String, Given)>> {
    let path = path.to_owned();
    let values = match (path.as_str(), &field.shape) {
        ("prediction_id" | "event_id", _) => "[a-z0-9-]{1,36}".prop_map(Scalar::String).prop_map(Given::Scalar).boxed(),
        ("event_time", _) => super::super::TIME_US.prop_map(Scalar::Timestamp).prop_map(Given::Scalar).boxed(),
        ("op", _) => prop::sample::select(vec!["assert", "retract"])
            .prop_map(|op| Given::Scalar(Scalar::String(op.to_owned())))
            .boxed(),
        (_, Shape::Plain(ty)) => given(ty),
        (_, Shape::Records(items)) => {
            let scalars = |ty: &Shape| match ty {
                Shape::Plain(ty) => proptest::option::of(scalar_of(ty)),
                _ => unreachable!(),
            };
            let item: Vec<_> = items.fields.iter().map(|field| scalars(&field.shape)).collect();
            proptest::collection::vec(item, 0..4).prop_map(Given::Records).boxed()
        }
        (_, Shape::Record(_)) => unreachable!(),
    };
    let named = values.prop_map(move |value| (path.clone(), value));
    if field.null_branch.is_some() {
        proptest::option::weighted(0.7, named).boxed()
    } else {
        named.prop_map(Some).boxed()
    }
}

/// The datum that apache-avro writes.
pub(crate) fn encode(schema: &str, layout: &Layout, record: &Record) -> Vec<u8> {
    let schema = AvroSchema::parse_str(schema).unwrap();
    let value = avro_record(layout, "", record);
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
}

fn avro_record(layout: &Layout, prefix: &str, record: &Record) -> Avro {
    let fields = layout.fields.iter().map(|field| {
        let path = format!("{prefix}{}", field.name);
        let value = match &field.shape {
            Shape::Record(inner) => {
                let prefix = format!("{path}.");
                let all_null = !record.keys().any(|key| key.starts_with(&prefix));
                (!all_null || field.null_branch.is_none()).then(|| avro_record(inner, &prefix, record))
            }
            shape => record.get(&path).map(|given| avro_given(given, shape)),
        };
        (field.name.clone(), in_union(value, field.null_branch))
    });
    Avro::Record(fields.collect())
}

fn in_union(value: Option<Avro>, null_branch: Option<u8>) -> Avro {
    match (value, null_branch) {
        (Some(value), None) => value,
        (Some(value), Some(null)) => Avro::Union(u32::from(1 - null), Box::new(value)),
        (None, Some(null)) => Avro::Union(u32::from(null), Box::new(Avro::Null)),
        (None, None) => panic!("a plain field needs a value"),
    }
}

fn avro_given(given: &Given, shape: &Shape) -> Avro {
    match (given, shape) {
        (Given::Scalar(value), _) => avro_scalar(value),
        (Given::List(items), _) => Avro::Array(items.iter().map(avro_scalar).collect()),
        (Given::Records(items), Shape::Records(layout)) => Avro::Array(
            items
                .iter()
                .map(|item| {
                    let fields = item.iter().zip(&layout.fields).map(|(value, field)| {
                        (field.name.clone(), in_union(value.as_ref().map(avro_scalar), field.null_branch))
                    });
                    Avro::Record(fields.collect())
                })
                .collect(),
        ),
        _ => unreachable!(),
    }
}

fn avro_scalar(value: &Scalar) -> Avro {
    match value {
        Scalar::Boolean(value) => Avro::Boolean(*value),
        Scalar::Int(value) => Avro::Int(*value),
        Scalar::Long(value) => Avro::Long(*value),
        Scalar::Float(value) => Avro::Float(*value),
        Scalar::Double(value) => Avro::Double(*value),
        Scalar::Decimal(value) => Avro::Decimal(apache_avro::Decimal::from(short(*value))),
        Scalar::String(value) => Avro::String(value.clone()),
        Scalar::Bytes(value) => Avro::Bytes(value.clone()),
        Scalar::Date(value) => Avro::Date(*value),
        Scalar::Timestamp(value) => Avro::TimestampMicros(*value),
        Scalar::Uuid(value) => Avro::Uuid(value.parse().unwrap()),
    }
}

/// The shortest big-endian two's complement, as Java writes decimals.
fn short(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let redundant = |pair: &[u8]| (pair[0] == 0 && pair[1] < 0x80) || (pair[0] == 0xff && pair[1] >= 0x80);
    let skip = bytes.windows(2).take_while(|pair| redundant(pair)).count();
    bytes[skip..].to_vec()
}

/// The column of a path.
pub(super) fn column(path: &str) -> String {
    match path.split_once('.') {
        Some(("prediction", name)) => format!("prediction_{name}"),
        Some(("label", name)) => format!("label_{name}"),
        Some((_, name)) => name.to_owned(),
        None => path.to_owned(),
    }
}

/// The cells of a row that are not null, as text, by column.
pub(crate) fn cells(batch: &RecordBatch, row: usize) -> BTreeMap<String, String> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    columns.filter_map(|(field, array)| Some((field.name().clone(), read(array.as_ref(), row)?.bits()))).collect()
}

fn read(array: &dyn Array, row: usize) -> Option<Given> {
    if array.is_null(row) {
        return None;
    }
    let Some(lists) = array.as_list_opt::<i32>() else {
        return Some(Given::Scalar(cell(array, row).unwrap()));
    };
    let items = lists.value(row);
    Some(match items.as_struct_opt() {
        Some(structs) => Given::Records(
            (0..structs.len())
                .map(|item| {
                    structs.columns().iter().map(|c| c.is_valid(item).then(|| cell(c, item).unwrap())).collect()
                })
                .collect(),
        ),
        None => Given::List((0..items.len()).map(|item| cell(&items, item).unwrap()).collect()),
    })
}

/// What the row of a record must hold in the columns of the table, but for those of the origin.
pub(super) fn expected(record: &Record) -> BTreeMap<String, String> {
    record.iter().map(|(path, given)| (column(path), given.bits())).collect()
}

/// The Arrow schema that Iceberg gives to a table.
pub(super) fn arrow_schema(spec: &Table) -> SchemaRef {
    let mut id = 1000;
    let mut next = || {
        id += 1;
        id
    };
    fn plain(ty: &Type, next: &mut impl FnMut() -> i32) -> IcebergType {
        IcebergType::Primitive(match ty {
            Type::Boolean => PrimitiveType::Boolean,
            Type::Int => PrimitiveType::Int,
            Type::Long => PrimitiveType::Long,
            Type::Float => PrimitiveType::Float,
            Type::Double => PrimitiveType::Double,
            Type::Decimal { precision, scale } => {
                PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(*scale) }
            }
            Type::String | Type::Uuid => PrimitiveType::String,
            Type::Bytes => PrimitiveType::Binary,
            Type::Date => PrimitiveType::Date,
            Type::Timestamp => PrimitiveType::Timestamptz,
            Type::List(item) => {
                let item = plain(item, next);
                let element = NestedField::list_element(next(), item, true).with_doc("an item");
                return IcebergType::List(ListType::new(element.into()));
            }
        })
    }
    let fields: Vec<_> = spec
        .columns
        .iter()
        .zip(1..)
        .map(|(column, id)| {
            let ty = match &column.ty {
                ColumnType::Plain(ty) => plain(ty, &mut next),
                ColumnType::Provenance => {
                    let types = [Type::String, Type::String, Type::Timestamp, Type::Long];
                    let named = ["view", "status", "feature_time", "age_ms"].into_iter().zip(types);
                    let fields = named.map(|(name, ty)| {
                        let ty = plain(&ty, &mut next);
                        NestedField::optional(next(), name, ty).with_doc(name).into()
                    });
                    let structs = IcebergType::Struct(StructType::new(fields.collect()));
                    IcebergType::List(ListType::new(NestedField::list_element(next(), structs, true).into()))
                }
            };
            NestedField::new(id, &column.name, ty, column.required).with_doc(&column.doc).into()
        })
        .collect();
    let schema = IcebergSchema::builder().with_fields(fields).build().unwrap();
    Arc::new(iceberg::arrow::schema_to_arrow_schema(&schema).unwrap())
}

pub(super) fn predictions_schema(contract: &Contract) -> SchemaRef {
    arrow_schema(&table::predictions(contract))
}

pub(super) fn outcomes_schema(contract: &Contract) -> SchemaRef {
    arrow_schema(&table::outcomes(contract))
}

/// What apache-avro read, as a record.
pub(super) fn decoded(layout: &Layout, value: Avro) -> Record {
    let mut record = Record::new();
    unfold(layout, "", value, &mut record);
    record
}

fn unfold(layout: &Layout, prefix: &str, value: Avro, record: &mut Record) {
    let Avro::Record(fields) = value else { panic!("{value:?}") };
    for ((name, value), field) in fields.into_iter().zip(&layout.fields) {
        let path = format!("{prefix}{name}");
        match (bare_value(value), &field.shape) {
            (None, _) => {}
            (Some(value), Shape::Record(inner)) => unfold(inner, &format!("{path}."), value, record),
            (Some(Avro::Array(items)), Shape::Records(_)) => {
                let item = |item| match item {
                    Avro::Record(fields) => {
                        fields.into_iter().map(|(_, value)| bare_value(value).map(scalar_from)).collect()
                    }
                    other => panic!("{other:?}"),
                };
                record.insert(path, Given::Records(items.into_iter().map(item).collect()));
            }
            (Some(Avro::Array(items)), _) => {
                record.insert(path, Given::List(items.into_iter().map(scalar_from).collect()));
            }
            (Some(value), _) => {
                record.insert(path, Given::Scalar(scalar_from(value)));
            }
        }
    }
}

fn bare_value(value: Avro) -> Option<Avro> {
    match value {
        Avro::Union(_, value) => bare_value(*value),
        Avro::Null => None,
        other => Some(other),
    }
}

fn scalar_from(value: Avro) -> Scalar {
    match value {
        Avro::Boolean(value) => Scalar::Boolean(value),
        Avro::Int(value) => Scalar::Int(value),
        Avro::Long(value) => Scalar::Long(value),
        Avro::Float(value) => Scalar::Float(value),
        Avro::Double(value) => Scalar::Double(value),
        Avro::Decimal(value) => {
            let bytes = Vec::<u8>::try_from(value).unwrap();
            let sign = if bytes[0] < 0x80 { 0 } else { -1 };
            Scalar::Decimal(bytes.iter().fold(sign, |value, byte| value << 8 | i128::from(*byte)))
        }
        Avro::String(value) => Scalar::String(value),
        Avro::Bytes(value) => Scalar::Bytes(value),
        Avro::Date(value) => Scalar::Date(value),
        Avro::TimestampMicros(value) => Scalar::Timestamp(value),
        Avro::Uuid(value) => Scalar::Uuid(value.to_string()),
        other => panic!("{other:?}"),
    }
}
