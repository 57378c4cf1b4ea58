use super::*;

const GOOD: &str = "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\n";

async fn run(command: Command) -> (ExitCode, String) {
    let mut out = Vec::new();
    let code = command.run(&mut out).await;
    (code, String::from_utf8(out).unwrap())
}

fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

#[tokio::test]
async fn the_exit_code_says_what_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (good, bad) = (write("good.yaml", GOOD), write("bad.yaml", "apiVersion: 1"));
    let (wider, other) = (
        write("wider.yaml", &format!("{}features: {{a: {{type: int}}}}\n", GOOD.replace("version: 1", "version: 2"))),
        write("other.yaml", &format!("{GOOD}ids: caller\n")),
    );
    let missing = folder.path().join("missing.yaml");
    let diff = |old: &PathBuf, new: &PathBuf| Command::Diff { old: old.clone(), new: new.clone() };

    let (exit, out) = run(Command::Check { files: vec![good.clone(), bad.clone(), wider.clone()] }).await;
    assert_eq!(format!("{exit:?}"), format!("{:?}", code(1)));
    assert_eq!(out.lines().count(), 2, "{out}");
    for (command, expected) in [
        (Command::Check { files: vec![good.clone()] }, 0),
        (Command::Check { files: vec![missing] }, 2),
        (diff(&good, &good), 0),
        (diff(&good, &wider), 0),
        (diff(&good, &other), 1),
        (diff(&good, &bad), 1),
        (Command::Show { what: What::Docs, file: good.clone() }, 0),
        (Command::Show { what: What::Docs, file: bad }, 1),
    ] {
        let text = format!("{command:?}");
        let (exit, _) = run(command).await;
        assert_eq!(format!("{exit:?}"), format!("{:?}", code(expected)), "{text}");
    }
    for what in [What::Avro, What::Iceberg, What::Openapi] {
        let (_, out) = run(Command::Show { what, file: wider.clone() }).await;
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
    }
}
