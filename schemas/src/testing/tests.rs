//! The properties that hold for every contract.

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

use super::*;
use crate::avro::{Layout, Shape, contract_of, outcome_schema, prediction_schema};
use crate::evolution::{admit, diff};
use crate::registry::{Registry, RegistryConfig, RegistryErrorKind};
use crate::table;

fn compatible(a: &str, b: &str) -> bool {
    let (a, b) = (Schema::parse_str(a).unwrap(), Schema::parse_str(b).unwrap());
    matches!(SchemaCompatibility::mutual_read(&a, &b), Ok(Compatibility::Full))
}

fn schemas(contract: &Contract) -> [String; 2] {
    [prediction_schema(contract), outcome_schema(contract)]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn registry(root: &tempfile::TempDir) -> Registry {
    let url = format!("file:{}", root.path().display());
    Registry::open(&RegistryConfig { url, ..RegistryConfig::default() }).unwrap()
}

/// By text, since a NaN differs from itself.
fn same(a: &Contract, b: &Contract) -> bool {
    a.to_json() == b.to_json()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_contract_comes_back_from_its_json_as_json_and_as_yaml(contract in contracts()) {
        let json = contract.to_json();
        prop_assert!(same(&Contract::from_json(&json).unwrap(), &contract));
        // JSON is YAML; so the YAML reader must say the same.
        let yaml = Contract::parse(&json.to_string());
        prop_assert!(yaml.is_ok(), "{yaml:?}\n{json}");
        prop_assert!(same(&yaml.unwrap(), &contract));
    }

    #[test]
    fn its_schemas_are_avro_and_carry_it(contract in contracts()) {
        for text in schemas(&contract) {
            prop_assert!(Schema::parse_str(&text).is_ok());
            prop_assert!(same(&contract_of(&text).unwrap(), &contract));
        }
    }

    #[test]
    fn a_layout_says_what_the_contract_declares(contract in contracts()) {
        let layout = Layout::parse(&prediction_schema(&contract)).unwrap();
        for block in Block::ALL {
            let declared: Vec<(&str, Shape)> =
                contract.block(block).iter().map(|it| (it.name.as_str(), Shape::Plain(it.ty.clone()))).collect();
            let found: Vec<(&str, Shape)> = match layout.field(block.name()).map(|field| &field.shape) {
                Some(Shape::Record(fields)) => {
                    prop_assert!(fields.fields.iter().all(|field| field.null_branch == Some(0)));
                    fields.fields.iter().map(|it| (it.name.as_str(), it.shape.clone())).collect()
                }
                other => { prop_assert!(other.is_none()); Vec::new() }
            };
            prop_assert_eq!(found, declared);
        }
        let labels = Layout::parse(&outcome_schema(&contract)).unwrap();
        let labels = match labels.field("label").map(|field| &field.shape) {
            Some(Shape::Record(fields)) => fields.fields.len(),
            _ => 0,
        };
        prop_assert_eq!(labels, contract.labels.len());
    }

    #[test]
    fn its_columns_are_distinct(contract in contracts()) {
        for table in [table::predictions(&contract), table::training(&contract), table::outcomes(&contract)] {
            let names: std::collections::BTreeSet<&str> = table.columns.iter().map(|it| it.name.as_str()).collect();
            prop_assert_eq!(names.len(), table.columns.len());
        }
    }

    #[test]
    fn every_chain_of_adds_and_drops_is_compatible(chain in chains(5)) {
        for (index, new) in chain.iter().enumerate() {
            let changes = admit(&chain[..index], new);
            prop_assert!(changes.iter().all(crate::evolution::Change::is_compatible), "{changes:?}");
            for old in &chain[..index] {
                for (a, b) in schemas(old).iter().zip(&schemas(new)) {
                    prop_assert!(compatible(a, b), "{a}\n{b}");
                }
            }
        }
    }

    #[test]
    fn a_changed_type_is_refused(pair in contradictions()) {
        let changes = diff(&pair.old, &pair.new);
        prop_assert!(changes.iter().any(|change| !change.is_compatible()), "{changes:?}");
        let [old, new] = [&pair.old, &pair.new].map(prediction_schema);
        prop_assert_eq!(compatible(&old, &new), pair.seen == Seen::Never, "{}\n{}", old, new);
    }
}

proptest! {
    // These write and sync files.
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_directory_takes_every_chain(chain in chains(4)) {
        runtime().block_on(async {
            let root = tempfile::tempdir().unwrap();
            let registry = registry(&root);
            for contract in &chain {
                let done = crate::register::register(contract, &registry, "p").await.unwrap();
                let text = prediction_schema(contract);
                assert_eq!(registry.look_up(&done.subjects[0].name, &text).await.unwrap(), Some(done.subjects[0].id));
            }
            assert_eq!(registry.versions("p.generated_1.outcomes-value").await.unwrap().len(), chain.len());
        });
    }

    #[test]
    fn a_directory_refuses_contradictions(pair in contradictions()) {
        runtime().block_on(async {
            let root = tempfile::tempdir().unwrap();
            let registry = registry(&root);
            let [old, new] = [&pair.old, &pair.new].map(prediction_schema);
            registry.register("s", &old).await.unwrap();
            let answer = registry.register("s", &new).await;
            match pair.seen {
                Seen::Never => drop(answer.unwrap()),
                _ => assert_eq!(answer.unwrap_err().kind(), RegistryErrorKind::Incompatible),
            }
            // By its contract it is refused in any case.
            crate::register::register(&pair.old, &registry, "p").await.unwrap();
            let answer = crate::register::register(&pair.new, &registry, "p").await;
            assert!(matches!(answer, Err(crate::register::RegisterError::Refused(_))), "{answer:?}");
        });
    }
}
