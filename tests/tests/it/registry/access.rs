//! Who is let in, over what, and that no secret is told on the way.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use flywheel_schemas::registry::{Registry, RegistryConfig, RegistryErrorKind};
use flywheel_tests::servers::{self, shared, skipped};

use super::{Said, schemas, unique};
use crate::trouble::registry::hand_on;

const CONTRACT: &str = "apiVersion: flywheel/v1\nkind: ModelContract\nmodel: m\nversion: 1\n\
                        features: {a: {type: int}}\n";
/// The right ones, and wrong ones; none of them occurs in anything that is told.
const PASSWORD: &str = "open-sesame-7351";
const WRONG: &str = "not-the-word-9042";
/// The base64 of `ops:` and either of them, as it stands in a request.
const ENCODED: [&str; 2] = ["b3BzOm9wZW4tc2VzYW1lLTczNTE", "b3BzOm5vdC10aGUtd29yZC05MDQy"];

#[track_caller]
fn keeps_secrets(text: &str) {
    for secret in [PASSWORD, WRONG, ENCODED[0], ENCODED[1]] {
        assert!(!text.contains(secret), "a secret is told: {text}");
    }
}

#[track_caller]
fn ends(said: Said, code: i32) -> Said {
    assert_eq!(said.code, Some(code), "{said:?}");
    keeps_secrets(&format!("{said:?}"));
    said
}

/// A folder with a contract and files of secrets.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write("m.yaml", CONTRACT);
        folder
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn register(&self, url: &str, more: &[&str]) -> Said {
        let file = self.0.path().join("m.yaml").display().to_string();
        schemas(&[&["register", &file, "--registry", url, "--prefix", &unique("access")], more].concat())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_over_tls() {
    if skipped("a_password_over_tls") {
        return;
    }
    let folder = Folder::new();
    let registry = servers::Registry::start_with_password(folder.0.path(), "ops", PASSWORD).unwrap();
    let (url, ca) = (registry.address(), registry.certificate());
    assert!(url.starts_with("https://"));
    let password = folder.write("password", &format!("{PASSWORD}\n"));
    let wrong = folder.write("wrong", WRONG);
    let [ca_text, password_text, wrong_text] = [&ca, &password, &wrong].map(|path| path.display().to_string());

    let trusted = ["--ca-file", &ca_text];
    let named = |file| [&trusted[..], &["--username", "ops", "--password-file", file]].concat();
    let done = ends(folder.register(url, &named(&password_text)), 0);
    assert!(done.out.contains("m.predictions-value is schema"), "{done:?}");
    for (more, expected) in [
        (named(&wrong_text), "401"),
        (trusted.to_vec(), "401"),
        (named("/nowhere/password"), "/nowhere/password"),
        // Without its certificate the server is nobody, and the word is not said to it.
        (vec!["--username", "ops", "--password-file", &password_text], "certificate"),
    ] {
        let said = ends(folder.register(url, &more), 2);
        assert!(said.err.contains(expected) && said.err.contains("schema registry"), "{expected}: {said:?}");
    }
    // A password in the URL is refused, and not repeated.
    let said = ends(folder.register(&url.replace("://", &format!("://ops:{PASSWORD}@")), &trusted), 2);
    assert!(said.err.contains("password_file"), "{said:?}");

    // The file is read anew for each call, as it is replaced under a running service.
    let config = |password_file: &PathBuf| RegistryConfig {
        url: url.to_owned(),
        username: Some("ops".to_owned()),
        password_file: Some(password_file.clone()),
        ca_file: Some(ca.clone()),
        ..RegistryConfig::default()
    };
    let client = Registry::open(&config(&password)).unwrap();
    let id = client.register("rotated", r#"{"type":"record","name":"m","fields":[]}"#).await.unwrap();
    folder.write("password", WRONG);
    for error in [client.latest("rotated").await.unwrap_err(), client.schema(id).await.unwrap_err()] {
        assert_eq!(error.kind(), RegistryErrorKind::Unauthorized);
        assert!(error.is_passing());
        keeps_secrets(&format!("{error} {error:?}"));
    }
    folder.write("password", PASSWORD);
    assert_eq!(client.latest("rotated").await.unwrap().map(|latest| latest.id), Some(id));
    assert!(client.schema(id).await.unwrap().contains("record"));
    keeps_secrets(&format!("{:?}", config(&password)));
}

/// Before the shared registry: lets in who bears the token, and hands the rest of a request on.
async fn gateway(State(token): State<String>, request: Request) -> Response {
    let borne = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if borne != Some(&format!("Bearer {token}")) {
        return (StatusCode::UNAUTHORIZED, r#"{"error_code":401,"message":"who are you?"}"#).into_response();
    }
    hand_on(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bearer_token_before_the_registry() {
    if skipped("a_bearer_token_before_the_registry") {
        return;
    }
    // Not from within a request, since it may have to start.
    tokio::task::spawn_blocking(shared).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(gateway).with_state(PASSWORD.to_owned());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let folder = Folder::new();
    let (right, wrong) = (folder.write("token", &format!("{PASSWORD}\n")), folder.write("wrong", WRONG));
    let [right, wrong] = [right, wrong].map(|path| path.display().to_string());
    let run = |more: Vec<String>| {
        let url = url.clone();
        let more: Vec<String> = more;
        let folder = &folder;
        tokio::task::block_in_place(|| folder.register(&url, &more.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let done = ends(run(vec!["--token-file".to_owned(), right]), 0);
    assert!(done.out.contains("m.predictions-value is schema"), "{done:?}");
    for more in [vec!["--token-file".to_owned(), wrong], vec![]] {
        let said = ends(run(more), 2);
        assert!(said.err.contains("401") && said.err.contains("who are you?"), "{said:?}");
    }
}
