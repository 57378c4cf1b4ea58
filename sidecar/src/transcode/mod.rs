//! From the JSON body of a request to the Avro datum of a record, in one pass, by a plan compiled once per contract.
//!
//! A hand-written scanner, directed by the schema, reads the body and writes Avro bytes as it goes: no tree of values
//! is built and nothing is allocated per field. Keys are expected in the order of the contract; another order, gaps
//! and white space are all right and cost a look-up. Nothing reaches `out` unless the whole body is good.
//!
//! # Values
//! The type table of [`flywheel_schemas::types`] decides what each type looks like in JSON. On top of it:
//! - Numbers keep every bit: a `double` is the f64 nearest to the text, a `float` the f32 nearest to the text (never
//!   by way of f64), `-0.0` and subnormals included. A text beyond the greatest finite number is `out_of_range`.
//!   The bare tokens `NaN`, `Infinity` and `-Infinity`, as Python writes them, are values of `float` and `double` and
//!   of nothing else; every NaN is written as the one quiet NaN.
//! - `int` and `long` take integers only: `1.0` and `1e3` are `wrong_type`.
//! - `decimal` is text of digits with an optional minus and point, no exponent. It must be exact: digits beyond the
//!   scale must be zeros.
//! - `timestamp` is RFC 3339 text with an offset and up to six digits of a second, or an integer of microseconds,
//!   of the years 1 to 9999: an instant beyond them, such as one in nanoseconds, is `out_of_range`. Seconds run to 59.
//! - In strings all escapes of JSON hold, surrogate pairs included; half a pair is `invalid_utf8`.
//! - `expect` bounds hold for numbers and, in lists, for each item. NaN is outside every range. Integers are compared
//!   exactly, floats as f32, decimals as the f64 nearest to their text.
//! - `null` is the same as absent. In a list it is `wrong_type`.
//!
//! # The envelope of a prediction
//! `event_time` is RFC 3339 text or integer microseconds and is cut to the millisecond; `model_version` is required;
//! `exposure` is `served` unless given. Texts of the envelope hold at most [`TEXT_BYTES_MAX`] bytes. Where `ids` is
//! `minted`, a `prediction_id` is a UUIDv7 whose time is the event time: minted from it when absent, giving it when
//! only the id is there, refused when the two differ; it and a `parent_prediction_id` that is a UUID are lower-cased.
//! Where `ids` is `caller`, both id and `event_time` are required and the id is any text of 1 to [`Id::BYTES_MAX`]
//! bytes.
//!
//! # Candidates of one request
//! A body whose first key is `shared` or `items` is a list of predictions that belong together: `items` has an object per
//! prediction, and `shared`, where it is there, what all of them have in common; a block may have fields in both. A key
//! in both is `duplicate_key`, null or not. `prediction_id` and `rank` are an item's own; an item without `rank` has its place
//! in the list, from 0. Where nobody gives a `request_id`, it is the prediction id of the first item that is right, so that
//! a body that is sent again with its ids gives the same rows.
//!
//! # Sampling and privacy
//! Both act here, before a byte can reach the disk. A prediction is in when [`flywheel_schemas::sampling::is_in`] says so of
//! its key and its rate: the key is the text of the prediction id or of the field that the contract names (integers in
//! decimal), and where that field is absent the prediction id; the rate is that of the first `keep` rule that holds, else
//! the contract's, or what the sidecar's configuration has in its place. A prediction that is out is checked like any other and then leaves `out` alone. `drop` writes null, `mask` writes `***` for a string and null for the rest; `hmac`
//! the [pseudonym](crate::privacy) of a string; values are checked first.
//!
//! # Outcomes
//! An assert has `labels` as an object with at least one label and no null; a retract has an array of names, or none
//! for all. `outcome_id` is required where a label counts or sums. `event_time` and `op_time` default to receipt,
//! `event_id` is minted unless brought (a UUID of any version).
//!
//! # Faults
//! All faults of a body are listed, each with an RFC 6901 pointer, up to [`FAULTS_MAX`]. Broken JSON or UTF-8 ends the
//! scan with the byte where it broke. Details never repeat a value, which may be private. Keys in pointers are cut to
//! [`KEY_BYTES_MAX`] bytes.

pub(crate) mod avro;
mod block;
mod candidates;
mod decimal;
mod fault;
mod identity;
mod names;
mod number;
mod outcome;
mod plan;
mod prediction;
mod reader;
mod sampling;
mod scanner;
pub(crate) mod time;
mod value;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod tests;

use block::Segment;
pub use candidates::{Candidates, Group};
pub use fault::{FAULTS_MAX, Fault, KEY_BYTES_MAX, Reason};
pub use identity::Id;
pub use outcome::{Stated, outcome};
pub use plan::{Local, Plan, PlanError};
pub use prediction::{Served, prediction};

/// Bytes of a body. Bounds the buffers of [`Scratch`]: the largest growth is `list<double>`, eight bytes for two.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Bytes of a text in an envelope, such as `request_id`: these are names, and stand in every row.
pub const TEXT_BYTES_MAX: usize = 1024;

/// How far an event may lie ahead of its receipt: the clocks of client and sidecar differ.
pub const AHEAD_MS_MAX: i64 = 300_000;

/// Capacity that a [`Scratch`] keeps per buffer between bodies, so that one huge body does not hold its memory.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// When and under which trace a body came in.
#[derive(Debug, Clone, Copy)]
pub struct Receipt<'a> {
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// The W3C trace id of the request; checked by whoever read it from the header.
    pub trace_id: Option<&'a str>,
}

/// Buffers that are reused from body to body; one per task.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Encoded texts of the envelope.
    head: Vec<u8>,
    /// Encoded blocks, in the order in which they came.
    blocks: Vec<u8>,
    /// Where each field of the current block stands in `blocks`.
    segments: Vec<Segment>,
    /// A block while its fields are put into schema order.
    ordered: Vec<u8>,
    /// A string value without its escapes.
    text: String,
    /// A key without its escapes.
    key: String,
    /// The text that sampling goes by, where it is that of a field and the field is there.
    sample: Vec<u8>,
    has_sample: bool,
}

impl Scratch {
    fn clear(&mut self) {
        self.has_sample = false;
        for buffer in [&mut self.head, &mut self.blocks, &mut self.ordered, &mut self.sample] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES_MAX);
        }
        for buffer in [&mut self.text, &mut self.key] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES_MAX);
        }
    }
}
