//! Commands as they are given, on a model that is there.

use std::ffi::OsString;
use std::process::ExitCode;

use flywheel_schemas::contract::Scalar;

use super::rig::{MINUTE, Rig, START};

/// The exit status of a command, as text.
async fn give(rig: &Rig, command: &[&str]) -> String {
    let file = rig.dir.path().join("joiner.toml");
    std::fs::write(&file, toml::to_string(&*rig.shared.config).unwrap()).unwrap();
    let arguments = command.iter().map(OsString::from).chain([OsString::from("--config"), file.into()]);
    format!("{:?}", crate::run_from_args(arguments).await)
}

#[tokio::test]
async fn an_index_that_is_deleted_is_built_anew_and_one_in_use_is_left() {
    let rig = Rig::new(1).await;
    let [done, failed] = [ExitCode::SUCCESS, ExitCode::FAILURE].map(|code| format!("{code:?}"));
    let command = ["rebuild-index", "--model", "m"];
    assert_eq!(give(&rig, &command).await, failed, "there is none yet");
    rig.tick(START).await;
    let t = START + MINUTE;
    let id = rig.predict(1, t, t, 1.0).await;
    rig.state("e", &id, START + 3 * MINUTE, &[("label.won", Scalar::Boolean(true))]).await;
    rig.ticks(START + 5 * MINUTE, START + 60 * MINUTE).await;
    // Under the name that the settings say.
    let mut pipeline = rig.pipeline("index").await;
    rig.run(&mut pipeline).await;
    let dir = rig.shared.config.index.dir.join("m");
    let stamp = pipeline.index.stamp().unwrap();
    assert_eq!(give(&rig, &command).await, failed, "a joiner has it open");
    assert!(dir.exists());
    assert_eq!(pipeline.index.statements(&id, i64::MAX, 9).unwrap().len(), 1);
    drop(pipeline);
    assert_eq!(give(&rig, &command).await, done);
    assert!(!dir.exists());

    rig.ticks(START + 65 * MINUTE, START + 90 * MINUTE).await;
    let mut pipeline = rig.pipeline("index").await;
    assert_eq!(pipeline.index.stamp().unwrap(), stamp);
    rig.run(&mut pipeline).await;
    assert_eq!(rig.rows("m_training").await[0]["label_won"], "Boolean(true)");
}
