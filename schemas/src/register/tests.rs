use super::*;
use crate::registry::RegistryConfig;

fn contract(version: i32, fields: &str) -> Contract {
    let text = format!(
        "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: {version}\nfeatures: {{{fields}}}\nlabels: {{l: \
         {{type: int, window: 1h, lateness: 1h, aggregate: last}}}}\n"
    );
    Contract::parse(&text).unwrap()
}

fn registry(root: &tempfile::TempDir) -> Registry {
    let url = format!("file:{}", root.path().display());
    Registry::open(&RegistryConfig { url, ..RegistryConfig::default() }).unwrap()
}

#[tokio::test]
async fn all_four_subjects_are_registered_and_carry_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry(&root);
    let contract = contract(1, "a: {type: int}");
    let done = register(&contract, &registry, "flywheel").await.unwrap();
    let names: Vec<&str> = done.subjects.iter().map(|subject| subject.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "flywheel.m.predictions-value",
            "flywheel.m.outcomes-value",
            "flywheel.ledger-value",
            "flywheel.deadletter-value"
        ]
    );
    for subject in &done.subjects[..2] {
        assert_eq!(avro::contract_of(&registry.schema(subject.id).await.unwrap()).unwrap(), contract);
    }
    assert_eq!(register(&contract, &registry, "flywheel").await.unwrap(), done);
    assert_eq!(registry.versions(names[0]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_known_version_with_another_content_is_refused_before_anything_is_written() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry(&root);
    register(&contract(1, "a: {type: int}"), &registry, "flywheel").await.unwrap();
    register(&contract(2, "b: {type: int}"), &registry, "flywheel").await.unwrap();
    for wrong in [contract(2, "c: {type: int}"), contract(3, "a: {type: long}"), contract(1, "")] {
        let error = register(&wrong, &registry, "flywheel").await.unwrap_err();
        assert!(matches!(&error, RegisterError::Refused(_)), "{error}");
    }
    assert_eq!(registry.versions("flywheel.m.predictions-value").await.unwrap().len(), 2);
    assert_eq!(registry.versions("flywheel.m.outcomes-value").await.unwrap().len(), 2);
    // An old one is still known.
    register(&contract(1, "a: {type: int}"), &registry, "flywheel").await.unwrap();
}

#[tokio::test]
async fn a_registration_that_was_cut_short_is_finished() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry(&root);
    let contract = contract(1, "a: {type: int}");
    registry.register("flywheel.m.predictions-value", &avro::prediction_schema(&contract)).await.unwrap();
    let done = register(&contract, &registry, "flywheel").await.unwrap();
    assert_eq!(done.subjects.len(), 4);
}

#[tokio::test]
async fn a_foreign_schema_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let registry = registry(&root);
    let foreign = r#"{"type":"record","name":"x","fields":[]}"#;
    registry.register("flywheel.m.outcomes-value", foreign).await.unwrap();
    let error = register(&contract(1, ""), &registry, "flywheel").await.unwrap_err();
    assert!(matches!(&error, RegisterError::Foreign { version: 1, .. }), "{error}");
    assert_eq!(registry.versions("flywheel.m.predictions-value").await.unwrap(), []);
}
