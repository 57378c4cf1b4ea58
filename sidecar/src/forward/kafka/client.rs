//! The librdkafka client: what it reports and logs, by what token it is let in, and what each of its errors is.

use std::sync::Arc;

use flywheel_schemas::token;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::mpsc;

use crate::forward::Report;
use crate::forward::brokers::Brokers;
use crate::forward::policy::{Failure, FailureKind};

pub(super) type Client = ThreadedProducer<Context>;

pub(super) fn create(config: &ClientConfig, brokers: &Arc<Brokers>) -> Result<Client, KafkaError> {
    config.create_with_context(Context { brokers: brokers.clone() })
}

/// What travels with a record through librdkafka.
pub(super) struct Delivery {
    pub(super) token: u64,
    pub(super) reports: mpsc::UnboundedSender<Report>,
}

/// Logs and reports of the client; called on its thread.
pub(super) struct Context {
    brokers: Arc<Brokers>,
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Brokers that are away are librdkafka's to try again; what is lost or needs a person shows in the reports.
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => {
                self.brokers.lost(reason);
            }
            // One broker of several, which says little; of the last one the above is said as well.
            Some(Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut) => {
                tracing::debug!(%error, reason, "Kafka producer");
            }
            Some(code @ (Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL)) => {
                self.brokers.refused(&format!("{code:?}"), reason);
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
            Level::Emerg | Level::Alert | Level::Critical | Level::Error | Level::Warning => {
                tracing::warn!(facility, message, "librdkafka");
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
                self.brokers.answered();
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
