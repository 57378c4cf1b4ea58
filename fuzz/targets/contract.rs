//! Any text is read as a contract without a panic; one that is good says the same after its way through JSON, and has schemas
//! that can be read.
#![no_main]

use flywheel_schemas::avro::{Layout, outcome_schema, prediction_schema};
use flywheel_schemas::contract::Contract;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Contract::check(text).result {
        Ok(contract) => {
            let json = serde_json::from_str(&contract.to_json().to_string()).expect("JSON");
            assert_eq!(Contract::from_json(&json).as_ref(), Ok(&contract));
            Layout::parse(&prediction_schema(&contract)).expect("a schema");
            Layout::parse(&outcome_schema(&contract)).expect("a schema");
        }
        Err(faults) => assert!(!faults.is_empty()),
    }
});
