//! Rows posted to a sidecar or a gateway, as any client posts them: its checks, its spool and its ledger are the one way into
//! the log.
//!
//! | answer | what is done |
//! |---|---|
//! | 202 | the rows are accepted |
//! | 207 | each row by itself: accepted, refused, or, where the spool did not take it, posted again |
//! | 413 | halves are posted, down to the single row, which is refused |
//! | 408, 429, 500 and above, no answer | posted again, after `Retry-After` or a pause that doubles |
//! | any other | an error: no row would fare better |
//!
//! A row may reach the log twice where an answer is lost. Rows bring their ids, so that copies are known as such.

use std::time::{Duration, Instant};

use flywheel_schemas::wire::Kind;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use serde::Deserialize;

/// Rows of one request. A sidecar takes ten thousand unless told otherwise, and answers with a line for each.
pub(super) const ROWS_MAX: usize = 1000;
/// Their bytes: half of what a sidecar takes unless told otherwise. A longer row is posted alone.
pub(super) const BYTES_MAX: usize = 512 * 1024;
/// A sidecar answers from its own disk; one that takes longer is away.
const ANSWER: Duration = Duration::from_secs(60);
/// The pause before rows are posted again, where the answer names none: from the first, doubled, to the second. What an answer
/// names is kept up to the second too.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// After this long without one accepted or refused row it is given up: longer than the restart of a node takes.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 600 });

/// What became of a row: nothing where it was accepted, else the faults.
pub(super) type Refused = Option<String>;

/// The route of a model's rows.
pub(super) struct Sidecar {
    client: Client,
    url: Url,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SidecarError {
    #[error("--to {url}: {why}; write http://HOST:PORT")]
    Address { url: String, why: String },
    #[error("{url} answers {status}: {detail}")]
    Answer { url: Url, status: StatusCode, detail: String },
    #[error("{url}: no row was taken for {} s: {why}. What was accepted is; the command may be repeated", PATIENCE.as_secs())]
    Away { url: Url, why: String },
}

/// A problem document (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    pointer: String,
    reason: String,
    detail: String,
}

/// The answer to a batch that was not wholly accepted.
#[derive(Deserialize)]
struct Results {
    results: Vec<RowResult>,
}

#[derive(Deserialize)]
struct RowResult {
    status: u16,
    #[serde(default)]
    errors: Vec<Fault>,
}

/// What one request came to.
enum Posted {
    Accepted,
    Each(Vec<RowResult>, Option<Duration>),
    TooLarge(String),
    Later(String, Option<Duration>),
}

impl Sidecar {
    /// `to` is the sidecar's address, without a path.
    pub fn new(to: &str, model: &str, kind: Kind) -> Result<Sidecar, SidecarError> {
        let failed = |why: String| SidecarError::Address { url: to.to_owned(), why };
        let mut url = Url::parse(to).map_err(|error| failed(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
            return Err(failed("it is to be the address alone".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            // Not shown: it would stand in logs.
            let url = "(hidden)".to_owned();
            return Err(SidecarError::Address { url, why: "a sidecar asks for no name and password".to_owned() });
        }
        url.set_path(&format!("/v1/models/{model}/{}", kind.name()));
        let client = Client::builder().no_proxy().timeout(ANSWER).build().map_err(|error| failed(error.to_string()))?;
        Ok(Sidecar { client, url })
    }

    /// Posts rows of JSON without line ends, as one batch; waits until each is accepted or refused. The answers are in the order
    /// of the rows.
    pub async fn post(&self, rows: &[&str]) -> Result<Vec<Refused>, SidecarError> {
        let mut refused: Vec<Refused> = vec![None; rows.len()];
        // Places of rows that are posted together; each turn settles some, halves them, or waits.
        let mut batches: Vec<Vec<usize>> = vec![(0..rows.len()).collect()];
        let (mut pause, mut progress) = (PAUSE.0, Instant::now());
        while let Some(batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            let (left, why, wait) = match self.send(rows, &batch).await? {
                Posted::Accepted => {
                    (pause, progress) = (PAUSE.0, Instant::now());
                    continue;
                }
                Posted::Each(results, wait) => {
                    if results.iter().any(|row| row.status != 503) {
                        (pause, progress) = (PAUSE.0, Instant::now());
                    }
                    let mut left = Vec::new();
                    for (place, row) in batch.into_iter().zip(results) {
                        match row.status {
                            202 => {}
                            503 => left.push(place),
                            _ => refused[place] = Some(sentence(&row.errors)),
                        }
                    }
                    (left, "its spool is full".to_owned(), wait)
                }
                Posted::TooLarge(detail) => match batch.as_slice() {
                    [place] => {
                        refused[*place] = Some(detail);
                        continue;
                    }
                    places => {
                        let (first, second) = places.split_at(places.len() / 2);
                        batches.extend([second.to_vec(), first.to_vec()]);
                        continue;
                    }
                },
                Posted::Later(why, wait) => (batch, why, wait),
            };
            if left.is_empty() {
                continue;
            }
            let wait = wait.unwrap_or(pause).min(PAUSE.1);
            if progress.elapsed() + wait >= PATIENCE {
                return Err(SidecarError::Away { url: self.url.clone(), why });
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE.1);
            batches.push(left);
        }
        Ok(refused)
    }

    async fn send(&self, rows: &[&str], batch: &[usize]) -> Result<Posted, SidecarError> {
        let lines: Vec<&str> = batch.iter().map(|place| rows[*place]).collect();
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-ndjson");
        let response = match request.body(lines.join("\n")).send().await {
            Ok(response) => response,
            Err(error) => return Ok(Posted::Later(causes(&error), None)),
        };
        let (status, wait) = (response.status(), retry_after(&response));
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return Ok(Posted::Later(causes(&error), wait)),
        };
        if status == StatusCode::ACCEPTED {
            return Ok(Posted::Accepted);
        }
        if status == StatusCode::MULTI_STATUS
            && let Ok(Results { results }) = serde_json::from_slice(&body)
            && results.len() == batch.len()
        {
            return Ok(Posted::Each(results, wait));
        }
        let detail = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if problem.errors.is_empty() => problem.detail,
            Ok(problem) => sentence(&problem.errors),
            Err(_) => "this is no answer of a sidecar; is the address right?".to_owned(),
        };
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => Ok(Posted::TooLarge(detail)),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Ok(Posted::Later(detail, wait)),
            _ if status.is_server_error() => Ok(Posted::Later(format!("{status}: {detail}"), wait)),
            _ => Err(SidecarError::Answer { url: self.url.clone(), status, detail }),
        }
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// An error with what is behind it: "error sending request" alone does not say that nobody listens.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // Ends: a chain of causes has no cycles.
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn sentence(faults: &[Fault]) -> String {
    let text = |fault: &Fault| match fault.pointer.as_str() {
        "" => format!("{}: {}", fault.reason, fault.detail),
        pointer => format!("{pointer}: {}: {}", fault.reason, fault.detail),
    };
    faults.iter().map(text).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::response::IntoResponse;
    use axum::routing::post;

    use super::*;

    /// Answers in turn, the last one again and again, and what was asked.
    struct Script {
        answers: Vec<(u16, &'static str, &'static str)>,
        turn: AtomicUsize,
        asked: Mutex<Vec<String>>,
    }

    async fn start(answers: &[(u16, &'static str, &'static str)]) -> (Sidecar, Arc<Script>) {
        let script = Arc::new(Script { answers: answers.to_vec(), turn: AtomicUsize::new(0), asked: Mutex::default() });
        let answer = async |State(script): State<Arc<Script>>, body: String| {
            script.asked.lock().unwrap().push(body);
            let turn = script.turn.fetch_add(1, Ordering::Relaxed).min(script.answers.len() - 1);
            let (status, retry, body) = script.answers[turn];
            (StatusCode::from_u16(status).unwrap(), [("retry-after", retry)], body).into_response()
        };
        let router = Router::new().route("/v1/models/m/outcomes", post(answer)).with_state(Arc::clone(&script));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (Sidecar::new(&to, "m", Kind::Outcomes).unwrap(), script)
    }

    fn asked(script: &Script) -> Vec<String> {
        script.asked.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn rows_that_the_spool_did_not_take_are_posted_again_and_refused_ones_are_not() {
        let mixed = r#"{"results":[{"status":202,"event_id":"a"},{"status":503},
            {"status":422,"errors":[{"pointer":"/labels/x","reason":"wrong_type","detail":"found a text"}]}]}"#;
        let (sidecar, script) =
            start(&[(503, "0", r#"{"detail":"busy"}"#), (207, "0", mixed), (202, "0", r#"{"event_ids":["b"]}"#)]).await;
        let refused = sidecar.post(&["1", "2", "3"]).await.unwrap();
        assert_eq!(refused, [None, None, Some("/labels/x: wrong_type: found a text".to_owned())]);
        assert_eq!(asked(&script), ["1\n2\n3", "1\n2\n3", "2"]);
    }

    #[tokio::test]
    async fn a_batch_that_is_too_large_is_halved_down_to_the_row_that_is_too_large() {
        let large = (413, "0", r#"{"detail":"a body has at most 5 bytes"}"#);
        let whole = (202, "0", r#"{"event_ids":[]}"#);
        let (sidecar, script) = start(&[large, large, large, whole, whole]).await;
        let refused = sidecar.post(&["1", "2", "3", "4"]).await.unwrap();
        assert_eq!(refused, [Some("a body has at most 5 bytes".to_owned()), None, None, None]);
        assert_eq!(asked(&script), ["1\n2\n3\n4", "1\n2", "1", "2", "3\n4"]);
    }

    #[tokio::test]
    async fn an_answer_that_no_row_would_fare_better_with_ends_it() {
        let (sidecar, script) = start(&[(404, "0", r#"{"detail":"no contract of this name"}"#)]).await;
        let error = sidecar.post(&["1"]).await.unwrap_err().to_string();
        assert!(error.contains("404") && error.contains("no contract of this name"), "{error}");
        assert_eq!(asked(&script).len(), 1);
    }

    #[tokio::test]
    async fn it_is_given_up_where_no_row_is_taken() {
        let (sidecar, script) = start(&[(503, "1", r#"{"detail":"the spool is full"}"#)]).await;
        let error = sidecar.post(&["1"]).await.unwrap_err();
        assert!(matches!(&error, SidecarError::Away { why, .. } if why.contains("the spool is full")), "{error}");
        assert!(asked(&script).len() > 1);
        assert!(Sidecar::new("http://127.0.0.1:1/path", "m", Kind::Outcomes).is_err());
        let secret = Sidecar::new("http://me:hush@127.0.0.1:1", "m", Kind::Outcomes).err().unwrap().to_string();
        assert!(!secret.contains("hush"), "{secret}");
        let nobody = Sidecar::new("http://127.0.0.1:1", "m", Kind::Outcomes).unwrap();
        let error = nobody.post(&["1"]).await.unwrap_err().to_string();
        assert!(error.contains("may be repeated") && error.to_lowercase().contains("connect"), "{error}");
    }
}
