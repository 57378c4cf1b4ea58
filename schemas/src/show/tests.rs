use serde_json::Value;

use super::*;
use crate::contract::full_contract;

#[test]
fn tables_have_distinct_field_ids_and_a_day() {
    let contract = full_contract();
    let tables = iceberg(&contract);
    for table in tables.as_array().unwrap() {
        fn ids(value: &Value, found: &mut Vec<u64>) {
            match value {
                Value::Object(map) => {
                    for (key, value) in map {
                        if key == "id" || key == "element-id" {
                            found.push(value.as_u64().unwrap());
                        }
                        ids(value, found);
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| ids(item, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        ids(&table["schema"], &mut found);
        let distinct: std::collections::BTreeSet<_> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "{table}");
        let source = table["partition-spec"][0]["source-id"].as_u64().unwrap();
        let day = table["schema"]["fields"].as_array().unwrap().iter().find(|field| field["id"] == source).unwrap();
        assert_eq!(day["type"], "timestamptz");
    }
}

#[test]
fn openapi_names_every_field_and_no_other() {
    let contract = full_contract();
    let document = openapi([&contract]);
    assert_eq!(document["openapi"], "3.1.0");
    let body = &document["components"]["schemas"]["flight_delay_prediction"];
    for (block, field) in contract.fields() {
        assert!(body["properties"][block.name()]["properties"][&field.name].is_object(), "{}", field.name);
    }
    assert_eq!(body["additionalProperties"], false);
    let required = body["properties"]["features"]["required"].as_array().unwrap();
    assert_eq!(required, &["dep_delay_min"]);
    let candidates = &document["components"]["schemas"]["flight_delay_candidates"]["properties"];
    let item = &candidates["items"]["items"]["properties"];
    assert!(item["rank"].is_object() && candidates["shared"]["properties"]["rank"].is_null(), "{candidates}");
    assert!(item["features"]["properties"]["carrier"].is_object() && item["features"]["required"].is_null(), "{item}");
    // Every reference has its target.
    let text = document.to_string();
    for (at, marker) in text.match_indices("#/components/schemas/") {
        let name: String = text[at + marker.len()..].chars().take_while(|c| *c != '"' && *c != '\\').collect();
        assert!(document["components"]["schemas"][&name].is_object(), "{name}");
    }
    assert!(document["paths"]["/v1/models/flight_delay/outcomes"]["post"].is_object());
    let description = &document["paths"]["/v1/models/flight_delay/predictions"]["post"]["description"];
    assert!(description.as_str().unwrap().contains("by a hash of `origin`"), "{description}");
}

#[test]
fn docs_name_fields_labels_and_columns() {
    let contract = full_contract();
    let docs = docs(&contract);
    for (block, field) in contract.fields() {
        assert!(docs.contains(&format!("| `{}` | `{}` |", field.name, block.column(&field.name))), "{docs}");
    }
    for label in &contract.labels {
        assert!(docs.contains(&format!("| `{0}` | `label_{0}` |", label.name)), "{docs}");
    }
    assert!(docs.contains("list&lt;float>"), "{docs}");
    let rules =
        "1 where `prediction_late_probability` is at least 0.8, else 0.5 where `prediction_verdict` is \"1\", else";
    assert!(docs.contains(rules), "{docs}");
    // Each row of a table has as many cells as its head.
    let mut head = None;
    for line in docs.lines() {
        if !line.starts_with('|') {
            head = None;
            continue;
        }
        let cells = line.replace("\\|", "").matches('|').count();
        assert_eq!(cells, *head.get_or_insert(cells), "{line}");
    }
}

#[test]
fn avro_shows_both_schemas() {
    let contract = full_contract();
    let shown = avro(&contract);
    assert_eq!(crate::avro::contract_of(&shown["outcomes"].to_string()).unwrap(), contract);
    assert_eq!(shown["predictions"]["name"], "Prediction");
}
