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
    for (index, (command, expected)) in [
        (Command::Check { files: vec![good.clone()] }, 0),
        (Command::Check { files: vec![missing] }, 2),
        (diff(&good, &good), 0),
        (diff(&good, &wider), 0),
        (diff(&good, &other), 1),
        (diff(&good, &bad), 1),
        (Command::Show { what: What::Docs, file: good.clone() }, 0),
        (Command::Show { what: What::Docs, file: bad }, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let (exit, _) = run(command).await;
        assert_eq!(format!("{exit:?}"), format!("{:?}", code(expected)), "{index}");
    }
    for what in [What::Avro, What::Iceberg, What::Openapi] {
        let (_, out) = run(Command::Show { what, file: wider.clone() }).await;
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
    }
}

#[tokio::test]
async fn contracts_are_registered_in_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.yaml");
    let registry = format!("file:{}", folder.path().join("registry").display());
    let register = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let line = ["flywheel-schemas", "register", file.to_str().unwrap(), "--registry", &registry];
        run(Arguments::try_parse_from(line).unwrap().command).await
    };
    let (exit, out) = register(GOOD).await;
    assert_eq!(format!("{exit:?}"), format!("{:?}", code(0)));
    assert!(out.contains("flywheel.m.predictions-value is schema 1"), "{out}");
    let (exit, _) = register(&format!("{GOOD}owner: me\n")).await;
    assert_eq!(format!("{exit:?}"), format!("{:?}", code(1)));
    let (exit, _) = register(&format!("{}owner: me\n", GOOD.replace("version: 1", "version: 2"))).await;
    assert_eq!(format!("{exit:?}"), format!("{:?}", code(0)));
}
