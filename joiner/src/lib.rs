//! .

pub mod label;
