//! A broker that asks who is there, over TLS: by a password, a token, a certificate. Wrong ones are told without being
//! repeated and hold the records; new ones are taken from their files without a restart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flywheel_joiner::source::{Source, SourceConfig, SourceError, SourceEvent};
use flywheel_tests::servers::{Authority, Secured, skipped};
use flywheel_tests::system::{BOUND, until};

use super::{Plan, Sidecar, once_or_more_in_order, topics};
use crate::registry::brokers::{base64url, token};

const PASSWORD: &str = "open-sesame-7351";
const WRONG: &str = "not-the-word-9042";
const NEXT: &str = "another-word-1158";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_asks_who_is_there() {
    if skipped("a_broker_that_asks_who_is_there") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secured = Secured::start(dir.path(), "ops", PASSWORD).unwrap();
    for prefix in ["password", "token", "certificate"] {
        topics(secured.kafka.address(), prefix).await;
    }
    for (principal, prefix) in [("User:ops", "password"), ("User:bearer", "token"), ("User:CN=sidecar", "certificate")]
    {
        secured.kafka.admin(&["allow", principal, prefix]).unwrap();
    }
    tokio::join!(
        by_a_password(&secured, dir.path()),
        by_a_token(&secured, dir.path()),
        by_a_certificate(&secured, dir.path())
    );
}

#[track_caller]
fn keeps_secrets(log: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!log.contains(secret), "a secret is told: {log}");
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A wrong password, the right one, another one that the broker asks for from now on; then the right to write is lost.
async fn by_a_password(secured: &Secured, dir: &Path) {
    let (prefix, file) = ("password", dir.join("password"));
    let options = vec![
        ("security.protocol", "SASL_SSL".to_owned()),
        ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
        ("sasl.username", "ops".to_owned()),
        ("sasl.password-file", text(&file)),
        ("ssl.ca.location", text(&secured.authority.certificate())),
    ];
    std::fs::write(&file, WRONG).unwrap();
    let plan = Plan { librdkafka: options.clone(), ..Plan::new(prefix, &secured.scram) };
    let mut sidecar = Sidecar::start(plan).await;
    sidecar.post(50).await;
    sidecar.until_blocked("denied", true).await;
    assert_eq!(sidecar.service.metrics().await.sum("flywheel_log_refused", &[]), 1);
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    sidecar.until_well().await;

    // The joiner takes the same options, and ends to be started anew where a file says something else.
    let config = SourceConfig {
        url: format!("kafka://{}", secured.scram),
        prefix: prefix.to_owned(),
        group: prefix.to_owned(),
        librdkafka: options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..SourceConfig::default()
    };
    let mut source = Source::open(&config).await.unwrap();

    // Sessions last some seconds; then the old password lets nobody in.
    secured.kafka.admin(&["password", "ops", NEXT]).unwrap();
    sidecar.post_until_refused("denied").await;
    std::fs::write(&file, NEXT).unwrap();
    sidecar.until_well().await;
    let ended = tokio::time::timeout(BOUND, async {
        loop {
            if let SourceEvent::Failed(error @ SourceError::Fatal { .. }) = source.next().await {
                return error.to_string();
            }
        }
    });
    let ended = ended.await.expect("the source ends");
    assert!(ended.contains("has changed"), "{ended}");
    source.close().await;
    Source::open(&config).await.unwrap().close().await;

    secured.kafka.admin(&["forbid", "User:ops"]).unwrap();
    sidecar.post_until_refused("denied").await;
    secured.kafka.admin(&["allow", "User:ops", prefix]).unwrap();
    sidecar.until_well().await;
    sidecar.post(50).await;
    sidecar.until_well().await;
    sidecar.service.stop().await;
    let copies = once_or_more_in_order(secured.kafka.address(), prefix, 1..=sidecar.accepted);
    println!("by a password: {} records, {copies} copies", sidecar.accepted);
    let log = sidecar.service.log();
    assert!(log.contains("Kafka refuses this client") && log.contains("SCRAM-SHA-512"), "{log}");
    keeps_secrets(&log, &[PASSWORD, WRONG, NEXT]);
}

/// Tokens that last for seconds, renewed in their file; then nobody renews it for a while.
async fn by_a_token(secured: &Secured, dir: &Path) {
    const LIFETIME_S: u64 = 15;
    let (prefix, file) = ("token", dir.join("token"));
    std::fs::write(&file, token("bearer", LIFETIME_S)).unwrap();
    let is_renewed = Arc::new(AtomicBool::new(true));
    let (renews, path) = (is_renewed.clone(), file.clone());
    let renewing = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if renews.load(Ordering::Relaxed) {
                // Whole at once, as those do it who renew tokens.
                let next = path.with_extension("next");
                std::fs::write(&next, token("bearer", LIFETIME_S)).unwrap();
                std::fs::rename(&next, &path).unwrap();
            }
        }
    });
    let options = vec![
        ("security.protocol", "SASL_SSL".to_owned()),
        ("sasl.mechanism", "OAUTHBEARER".to_owned()),
        ("sasl.oauthbearer.config", format!("token_file={}", text(&file))),
        ("ssl.ca.location", text(&secured.authority.certificate())),
    ];
    let mut sidecar = Sidecar::start(Plan { librdkafka: options, ..Plan::new(prefix, &secured.token) }).await;
    // Three lifetimes.
    for _ in 0..9 {
        sidecar.post(20).await;
        sidecar.until_well().await;
        tokio::time::sleep(Duration::from_secs(LIFETIME_S / 3)).await;
    }
    let told = async || sidecar.service.log().contains("its token expired");
    assert!(!told().await, "{}", sidecar.service.log());
    is_renewed.store(false, Ordering::Relaxed);
    until("the expiry is told", told).await;
    sidecar.post_until_refused("denied").await;
    is_renewed.store(true, Ordering::Relaxed);
    sidecar.until_well().await;
    renewing.abort();
    sidecar.service.stop().await;
    let copies = once_or_more_in_order(secured.kafka.address(), prefix, 1..=sidecar.accepted);
    println!("by a token: {} records, {copies} copies", sidecar.accepted);
    let log = sidecar.service.log();
    assert!(log.contains(&text(&file)), "{log}");
    keeps_secrets(&log, &[base64url(r#"{"alg":"none"}"#).as_str()]);
}

/// First nobody trusts anybody; then the sidecar the broker; then each the other.
async fn by_a_certificate(secured: &Secured, dir: &Path) {
    let prefix = "certificate";
    let stranger = Authority::new(&dir.join("stranger")).unwrap();
    let [ca, certificate, key] = ["ca.pem", "own.pem", "own.key"].map(|name| dir.join(name));
    let take = |from: &Path, to: &Path| std::fs::copy(from, to).unwrap();
    let strange = stranger.sign("sidecar").unwrap();
    take(&stranger.certificate(), &ca);
    take(&strange.0, &certificate);
    take(&strange.1, &key);
    let options = vec![
        ("security.protocol", "SSL".to_owned()),
        ("ssl.ca.location", text(&ca)),
        ("ssl.certificate.location", text(&certificate)),
        ("ssl.key.location", text(&key)),
    ];
    let mut sidecar = Sidecar::start(Plan { librdkafka: options, ..Plan::new(prefix, &secured.mutual) }).await;
    sidecar.post(50).await;
    sidecar.until_blocked("denied", true).await;
    let says = |text: &str| sidecar.service.log().contains(text);
    until("distrust", async || says("certificate verify failed")).await;
    take(&secured.authority.certificate(), &ca);
    // The broker says in an alert that it does not know who has signed.
    until("the broker's distrust", async || says("SSL alert number")).await;
    sidecar.until_blocked("denied", true).await;
    assert_eq!(sidecar.delivered().await, 0);
    let own = secured.authority.sign("sidecar").unwrap();
    take(&own.0, &certificate);
    take(&own.1, &key);
    sidecar.until_well().await;
    sidecar.service.stop().await;
    once_or_more_in_order(secured.kafka.address(), prefix, 1..=50);
    let private = std::fs::read_to_string(&key).unwrap();
    keeps_secrets(&sidecar.service.log(), &[private.lines().nth(1).unwrap()]);
}
