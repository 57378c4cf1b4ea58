//! librdkafka's errors, and what is to be done about each.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::source::SourceError;

pub(super) fn refused(error: KafkaError) -> SourceError {
    SourceError::Config { what: format!("log: librdkafka refuses its configuration: {error}") }
}

/// Puts the topic's name where an error has none.
pub(super) fn named(error: SourceError, topic: &str) -> SourceError {
    match error {
        SourceError::UnknownTopic { .. } => SourceError::UnknownTopic { topic: topic.to_string() },
        SourceError::Passing { what, cause } => SourceError::Passing { what: format!("{what} ({topic})"), cause },
        SourceError::Denied { what, cause } => SourceError::Denied { what: format!("{what} ({topic})"), cause },
        error => error,
    }
}

/// What is to be done about each of librdkafka's errors: the one table. What is not named is passing, since librdkafka itself
/// goes on trying.
pub(super) fn source_error(what: &str, error: &KafkaError) -> SourceError {
    use RDKafkaErrorCode as Code;
    let (what, cause) = (what.to_string(), error.to_string());
    if let KafkaError::MessageConsumptionFatal(_) = error {
        return SourceError::Fatal { what, cause };
    }
    match error.rdkafka_error_code() {
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::NoOffset | Code::LogTruncation) => {
            SourceError::OutOfRange { topic: String::new(), partition: -1, offset: -1, low: -1, end: -1 }
        }
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic) => {
            SourceError::UnknownTopic { topic: String::new() }
        }
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL,
        ) => SourceError::Denied { what, cause },
        Some(Code::Fatal | Code::FencedInstanceId | Code::UnsupportedVersion | Code::InconsistentGroupProtocol) => {
            SourceError::Fatal { what, cause }
        }
        _ => SourceError::Passing { what, cause },
    }
}
