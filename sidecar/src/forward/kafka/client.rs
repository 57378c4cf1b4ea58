//! The librdkafka client: what it reports and logs, by what token it is let in, and what each of its errors is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flywheel_schemas::token;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use tokio::sync::mpsc;

use crate::forward::Report;
use crate::forward::brokers::Brokers;
use crate::forward::policy::{Failure, FailureKind};

/// In OpenSSL's words.
const TLS_ALERT: &str = "SSL alert number";

/// A producer that a thread of its own polls until the last one that uses it lets go.
pub(super) type Client = Arc<BaseProducer<Context>>;

/// How long the thread waits at most, and with it the end of the client. rdkafka's own `ThreadedProducer` asks every 100 ms,
/// and spins through the last millisecond of each: a hundredth of a core at rest.
const POLL: Duration = Duration::from_secs(1);

/// `is_over` is set when the client is replaced: what it says after that is no more about the brokers.
pub(super) fn create(
    config: &ClientConfig,
    brokers: &Arc<Brokers>,
    is_over: &Arc<AtomicBool>,
) -> Result<Client, KafkaError> {
    let context = Context { brokers: brokers.clone(), is_over: is_over.clone() };
    let client: Client = Arc::new(config.create_with_context(context)?);
    let polled = Arc::downgrade(&client);
    let thread = std::thread::Builder::new().name("kafka-reports".to_owned());
    let started = thread.spawn(move || {
        while let Some(client) = polled.upgrade() {
            client.poll(POLL);
        }
    });
    started.map_err(|error| KafkaError::ClientCreation(format!("no thread: {error}")))?;
    Ok(client)
}

/// What travels with a record through librdkafka.
pub(super) struct Delivery {
    pub(super) token: u64,
    pub(super) reports: mpsc::UnboundedSender<Report>,
}

/// Logs and reports of the client; called on its thread.
pub(super) struct Context {
    brokers: Arc<Brokers>,
    is_over: Arc<AtomicBool>,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Brokers that are away are librdkafka's to try again; what is lost or needs a person shows in the reports.
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        if self.is_over.load(Ordering::Relaxed) {
            tracing::debug!(%error, reason, "replaced Kafka producer");
            return;
        }
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => {
                self.brokers.lost(reason);
            }
            // With TLS 1.3 a broker refuses a client's certificate when the connection stands already.
            Some(Code::BrokerTransportFailure) if reason.contains(TLS_ALERT) => {
                self.brokers.refused(reason);
            }
            Some(Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut) => {
                self.brokers.troubled(reason);
            }
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL) => {
                self.brokers.refused(reason);
            }
            Some(code) => {
                self.brokers.complained(&format!("{code:?}"), reason);
            }
            None => {
                self.brokers.complained("", reason);
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel as Level;
        match level {
            // These come as errors too, see above.
            _ if matches!(facility, "FAIL" | "ERROR") => tracing::debug!(facility, message, "librdkafka"),
            // Some of these come with each attempt to connect.
            Level::Emerg | Level::Alert | Level::Critical | Level::Error | Level::Warning => {
                self.brokers.complained(facility, message);
            }
            Level::Notice | Level::Info => tracing::info!(facility, message, "librdkafka"),
            Level::Debug => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn generate_oauth_token(&self, option: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let token = token::read(option)?;
        Ok(OAuthToken { token: token.text, principal_name: token.principal, lifetime_ms: token.until_ms })
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let result = match result {
            Ok(_) => {
                if !self.is_over.load(Ordering::Relaxed) {
                    self.brokers.answered();
                }
                Ok(())
            }
            Err((error, _)) => Err(failure(error)),
        };
        // The forwarder may have gone over to another client, or be at its end.
        let _ = delivery.reports.send(Report { token: delivery.token, result });
    }
}

pub(super) fn failure(error: &KafkaError) -> Failure {
    let kind = error.rdkafka_error_code().map_or(FailureKind::Passing, kind_of);
    Failure::new(kind, error.to_string())
}

/// What a failure of a client that is at its end was about, by the error that ended it.
pub(super) fn fatal(client: &Client) -> Option<Failure> {
    let (code, text) = client.client().fatal_error()?;
    let kind = if kind_of(code) == FailureKind::Denied { FailureKind::Expelled } else { FailureKind::Fatal };
    Some(Failure::new(kind, text))
}

/// What kind of failure each of librdkafka's codes is. What is not named here is passing: tests list what that is.
pub(super) fn kind_of(code: RDKafkaErrorCode) -> FailureKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::UnknownPartition
        | Code::InvalidTopic => FailureKind::UnknownTopic,
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::Authentication
        | Code::SSL => FailureKind::Denied,
        Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::InvalidRequest
        | Code::InvalidRequiredAcks => FailureKind::Rejected,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => FailureKind::BatchTooLarge,
        Code::Fatal
        | Code::GaplessGuarantee
        | Code::Inconsistent
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::ProducerFenced
        | Code::Fenced => FailureKind::Fatal,
        Code::PurgeQueue | Code::PurgeInflight | Code::BrokerDestroy => FailureKind::Dropped,
        _ => FailureKind::Passing,
    }
}

#[cfg(test)]
mod tests;
