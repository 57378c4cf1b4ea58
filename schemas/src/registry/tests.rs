use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const SUBJECT: &str = "flywheel.m.predictions-value";

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"m","fields":[{fields}]}}"#)
}

fn field(name: &str, ty: &str) -> String {
    format!(r#"{{"name":"{name}","type":["null","{ty}"],"default":null}}"#)
}

fn directory(root: &std::path::Path) -> Registry {
    Registry::open(&RegistryConfig { url: format!("file:{}", root.display()), ..RegistryConfig::default() }).unwrap()
}

#[tokio::test]
async fn a_directory_keeps_subjects_versions_and_ids() {
    let root = tempfile::tempdir().unwrap();
    let registry = directory(root.path());
    let (one, two) = (record(&field("a", "long")), record(&[field("a", "long"), field("b", "string")].join(",")));
    assert_eq!(registry.latest(SUBJECT).await.unwrap(), None);
    assert_eq!(registry.versions(SUBJECT).await.unwrap(), []);
    assert_eq!(registry.look_up(SUBJECT, &one).await.unwrap(), None);
    assert_eq!(registry.schema(1).await.unwrap_err().kind(), RegistryErrorKind::NotFound);

    let first = registry.register(SUBJECT, &one).await.unwrap();
    let second = registry.register(SUBJECT, &two).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(registry.register(SUBJECT, &one).await.unwrap(), first);
    assert_eq!(registry.register("other-value", &two).await.unwrap(), second);
    // Another process sees the same.
    let registry = directory(root.path());
    let versions = registry.versions(SUBJECT).await.unwrap();
    assert_eq!(versions.iter().map(|it| (it.version, it.id)).collect::<Vec<_>>(), [(1, first), (2, second)]);
    assert_eq!(registry.latest(SUBJECT).await.unwrap().as_ref(), versions.last());
    assert_eq!(registry.schema(first).await.unwrap(), one);
}

#[tokio::test]
async fn a_look_up_compares_what_the_text_says() {
    let root = tempfile::tempdir().unwrap();
    let registry = directory(root.path());
    let id = registry.register(SUBJECT, &record(&field("a", "long"))).await.unwrap();
    let other_order =
        r#"{ "fields": [{"type": ["null", "long"], "default": null, "name": "a"}], "name": "m", "type": "record" }"#;
    assert_eq!(registry.look_up(SUBJECT, other_order).await.unwrap(), Some(id));
    let other_attribute = r#"{"type":"record","name":"m","fields":[],"flywheel.contract":{}}"#;
    assert_eq!(registry.look_up(SUBJECT, other_attribute).await.unwrap(), None);
}

#[tokio::test]
async fn a_directory_refuses_what_an_old_version_cannot_read() {
    let root = tempfile::tempdir().unwrap();
    let registry = directory(root.path());
    registry.register(SUBJECT, &record(&field("a", "long"))).await.unwrap();
    registry.register(SUBJECT, &record(&field("b", "long"))).await.unwrap();
    for text in [
        record(&field("a", "string")),
        record(r#"{"name":"c","type":"long"}"#),
        r#"{"type":"record","name":"other","fields":[]}"#.to_owned(),
    ] {
        let error = registry.register(SUBJECT, &text).await.unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::Incompatible, "{text}: {error}");
        assert!(!error.is_passing());
    }
    assert_eq!(registry.register(SUBJECT, "{").await.unwrap_err().kind(), RegistryErrorKind::Refused);
    assert_eq!(registry.versions(SUBJECT).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_subject_cannot_leave_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let registry = directory(root.path());
    for subject in ["../x", "", ".", "..", "a/b"] {
        let error = registry.register(subject, &record("")).await.unwrap_err();
        assert_eq!(error.kind(), RegistryErrorKind::Refused, "{subject}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_register_at_once_agree() {
    let root = tempfile::tempdir().unwrap();
    let tasks: Vec<_> = (0..24)
        .map(|n| {
            // Each opens the directory for itself, as another process would.
            let registry = directory(root.path());
            let text = record(&field(&format!("f{}", n % 6), "long"));
            tokio::spawn(async move { (n % 6, registry.register(SUBJECT, &text).await.unwrap()) })
        })
        .collect();
    let mut ids = std::collections::BTreeMap::new();
    for task in tasks {
        let (n, id) = task.await.unwrap();
        assert_eq!(*ids.entry(n).or_insert(id), id);
    }
    let versions = directory(root.path()).versions(SUBJECT).await.unwrap();
    assert_eq!(versions.iter().map(|it| it.version).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let distinct: std::collections::BTreeSet<u32> = ids.into_values().collect();
    assert_eq!(distinct.len(), 6);
}

#[tokio::test]
async fn what_a_dead_process_left_is_taken_up() {
    let root = tempfile::tempdir().unwrap();
    let registry = directory(root.path());
    let text = record(&field("a", "long"));
    // It died after the schema and before the version, and in the middle of another file.
    std::fs::write(root.path().join("schemas/7.avsc"), &text).unwrap();
    std::fs::write(root.path().join("schemas/.new"), "{").unwrap();
    assert_eq!(registry.register(SUBJECT, &text).await.unwrap(), 7);
    assert_eq!(registry.register(SUBJECT, &record(&field("b", "long"))).await.unwrap(), 8);
}

/// A server that gives each request the next of `answers` and keeps what it was asked.
async fn canned(answers: Vec<(u16, String)>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut buffer) = (String::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut buffer).await.unwrap();
                request.push_str(&String::from_utf8_lossy(&buffer[..read]));
                let Some((head, sent)) = request.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if sent.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    break;
                }
            }
            kept.lock().unwrap().push(request);
            let length = body.len();
            let answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, requests)
}

fn served(url: &str) -> Registry {
    Registry::open(&RegistryConfig { url: url.to_owned(), ..RegistryConfig::default() }).unwrap()
}

#[tokio::test]
async fn each_answer_has_its_kind() {
    let kinds = [
        (401, RegistryErrorKind::Unauthorized, true),
        (403, RegistryErrorKind::Forbidden, false),
        (404, RegistryErrorKind::NotFound, false),
        (409, RegistryErrorKind::Incompatible, false),
        (422, RegistryErrorKind::Refused, false),
        (429, RegistryErrorKind::Unreachable, true),
        (500, RegistryErrorKind::Unreachable, true),
        (503, RegistryErrorKind::Unreachable, true),
    ];
    for (status, kind, passing) in kinds {
        let body = r#"{"error_code":1,"message":"told so"}"#.to_owned();
        let (url, _) = canned(vec![(status, body.clone()), (status, String::new())]).await;
        for _ in 0..2 {
            let error = served(&url).schema(5).await.unwrap_err();
            assert_eq!((error.kind(), error.is_passing()), (kind, passing), "{error}");
        }
        if status != 404 {
            let (url, _) = canned(vec![(status, body)]).await;
            let error = served(&url).look_up(SUBJECT, "{}").await.unwrap_err();
            assert_eq!((error.kind(), error.is_passing()), (kind, passing), "{error}");
            assert!(error.to_string().contains("told so"), "{error}");
        }
    }
}

#[tokio::test]
async fn absence_is_an_answer() {
    let missing = || (404, r#"{"error_code":40401,"message":"Subject not found"}"#.to_owned());
    let (url, requests) = canned(vec![missing(), missing(), missing()]).await;
    let registry = served(&url);
    assert_eq!(registry.look_up(SUBJECT, "{}").await.unwrap(), None);
    assert_eq!(registry.latest(SUBJECT).await.unwrap(), None);
    assert_eq!(registry.versions(SUBJECT).await.unwrap(), []);
    let lines: Vec<String> =
        requests.lock().unwrap().iter().map(|it| it.lines().next().unwrap_or_default().to_owned()).collect();
    let path = "/api/subjects/flywheel.m.predictions-value";
    assert_eq!(
        lines,
        [
            format!("POST {path} HTTP/1.1"),
            format!("GET {path}/versions/latest HTTP/1.1"),
            format!("GET {path}/versions HTTP/1.1")
        ]
    );
}

#[tokio::test]
async fn an_error_is_not_kept_but_a_text_is() {
    let (url, requests) = canned(vec![(500, String::new()), (200, r#"{"schema":"\"long\""}"#.to_owned())]).await;
    let registry = served(&url);
    assert!(registry.schema(5).await.is_err());
    for _ in 0..3 {
        assert_eq!(registry.schema(5).await.unwrap(), "\"long\"");
    }
    assert_eq!(requests.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn registering_demands_full_compatibility_once() {
    let (url, requests) = canned(vec![
        (404, "{}".to_owned()),
        (200, "{}".to_owned()),
        (200, r#"{"id":3}"#.to_owned()),
        (200, r#"{"compatibilityLevel":"FULL_TRANSITIVE"}"#.to_owned()),
        (409, r#"{"message":"no"}"#.to_owned()),
    ])
    .await;
    let registry = served(&url);
    assert_eq!(registry.register(SUBJECT, "{}").await.unwrap(), 3);
    assert_eq!(registry.register(SUBJECT, "{}").await.unwrap_err().kind(), RegistryErrorKind::Incompatible);
    let requests = requests.lock().unwrap();
    let methods: Vec<&str> = requests.iter().filter_map(|it| it.split(' ').next()).collect();
    assert_eq!(methods, ["GET", "PUT", "POST", "GET", "POST"]);
    assert!(requests[1].ends_with(r#"{"compatibility":"FULL_TRANSITIVE"}"#));
}

#[tokio::test]
async fn credentials_come_from_files_as_they_are_at_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let answers = vec![(200, r#"{"id":1}"#.to_owned()), (200, r#"{"schema":"1"}"#.to_owned())];
    let (url, requests) = canned(answers).await;
    let config = RegistryConfig { url, token_file: Some(file.clone()), ..RegistryConfig::default() };
    let registry = Registry::open(&config).unwrap();
    let error = registry.look_up(SUBJECT, "{}").await.unwrap_err();
    assert!(error.is_passing() && error.kind() == RegistryErrorKind::Unauthorized, "{error}");
    std::fs::write(&file, "first\n").unwrap();
    registry.look_up(SUBJECT, "{}").await.unwrap();
    std::fs::write(&file, "second\n").unwrap();
    registry.schema(1).await.unwrap();
    let requests = requests.lock().unwrap();
    assert!(requests[0].contains("authorization: Bearer first\r\n"), "{}", requests[0]);
    assert!(requests[1].contains("authorization: Bearer second\r\n"), "{}", requests[1]);
}

#[tokio::test]
async fn a_password_is_sent_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let (url, requests) = canned(vec![(403, String::new())]).await;
    let config =
        RegistryConfig { url, username: Some("me".to_owned()), password_file: Some(file), ..RegistryConfig::default() };
    let error = Registry::open(&config).unwrap().latest(SUBJECT).await.unwrap_err();
    assert_eq!(error.kind(), RegistryErrorKind::Forbidden);
    assert!(requests.lock().unwrap()[0].contains("authorization: Basic bWU6aHVudGVyMg==\r\n"));
}

#[test]
fn a_configuration_that_cannot_work_is_told() {
    let config = |url: &str| RegistryConfig { url: url.to_owned(), ..RegistryConfig::default() };
    let basic = RegistryConfig { username: Some("me".to_owned()), ..config("http://localhost") };
    let ca = RegistryConfig { ca_file: Some("/nowhere.pem".into()), ..config("https://localhost") };
    for config in
        [config(""), config("localhost:8081"), config("http://me:hunter2@localhost"), config("file:"), basic, ca]
    {
        let error = Registry::open(&config).err().unwrap();
        assert_eq!(error.kind(), RegistryErrorKind::Setup, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_passing() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let registry = served(&format!("http://{address}"));
    for error in [registry.schema(1).await.unwrap_err(), registry.look_up(SUBJECT, "{}").await.unwrap_err()] {
        assert!(error.is_passing(), "{error}");
    }
}
