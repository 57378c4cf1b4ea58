use std::collections::BTreeMap;

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr;

use super::*;

/// What a delivery report, or the sending of a record, can carry: librdkafka's own codes, and the brokers' for Produce
/// and for InitProducerId, with what each is.
const DELIVERY: &[(FailureKind, &[Code])] = &[
    (
        FailureKind::UnknownTopic,
        &[
            Code::UnknownTopic,
            Code::UnknownTopicOrPartition,
            Code::UnknownTopicId,
            Code::UnknownPartition,
            Code::InvalidTopic,
        ],
    ),
    (
        FailureKind::Denied,
        &[
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::TransactionalIdAuthorizationFailed,
            Code::SaslAuthenticationFailed,
            Code::UnsupportedSASLMechanism,
            Code::IllegalSASLState,
            Code::SecurityDisabled,
            Code::Authentication,
            Code::SSL,
        ],
    ),
    (
        FailureKind::Rejected,
        &[
            Code::InvalidRecord,
            Code::InvalidTimestamp,
            Code::PolicyViolation,
            Code::UnsupportedForMessageFormat,
            Code::UnsupportedCompressionType,
            Code::UnsupportedVersion,
            Code::UnsupportedFeature,
            Code::InvalidRequest,
            Code::InvalidRequiredAcks,
        ],
    ),
    (FailureKind::BatchTooLarge, &[Code::MessageSizeTooLarge, Code::MessageBatchTooLarge, Code::InvalidMessageSize]),
    (
        FailureKind::Fatal,
        &[
            Code::Fatal,
            Code::GaplessGuarantee,
            Code::Inconsistent,
            Code::OutOfOrderSequenceNumber,
            Code::UnknownProducerId,
            Code::InvalidProducerEpoch,
            Code::InvalidProducerIdMapping,
            Code::ProducerFenced,
            Code::Fenced,
        ],
    ),
    (FailureKind::Dropped, &[Code::PurgeQueue, Code::PurgeInflight, Code::BrokerDestroy]),
    (
        FailureKind::Passing,
        &[
            // Said by librdkafka.
            Code::BadMessage,
            Code::BadCompression,
            Code::Fail,
            Code::BrokerTransportFailure,
            Code::CriticalSystemResource,
            Code::Resolve,
            Code::MessageTimedOut,
            Code::AllBrokersDown,
            Code::InvalidArgument,
            Code::OperationTimedOut,
            Code::ISRInsufficient,
            Code::TimedOutQueue,
            Code::WaitCache,
            Code::Interrupted,
            Code::State,
            Code::Retry,
            Code::UnknownBroker,
            Code::InvalidDifferentRecord,
            Code::DestroyBroker,
            // Said by brokers; librdkafka repeats most of these by itself.
            Code::Unknown,
            Code::InvalidMessage,
            Code::LeaderNotAvailable,
            Code::NotLeaderForPartition,
            Code::RequestTimedOut,
            Code::BrokerNotAvailable,
            Code::ReplicaNotAvailable,
            Code::NetworkException,
            Code::CoordinatorLoadInProgress,
            Code::CoordinatorNotAvailable,
            Code::NotCoordinator,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::DuplicateSequenceNumber,
            Code::ConcurrentTransactions,
            Code::KafkaStorageError,
            Code::LogDirNotFound,
            Code::FencedLeaderEpoch,
            Code::UnknownLeaderEpoch,
            Code::StaleBrokerEpoch,
            Code::ThrottlingQuotaExceeded,
            Code::PrincipalDeserializationFailure,
            Code::RebootstrapRequired,
        ],
    ),
];

/// What belongs to consumers, groups, transactions, administration and serialisation, or is no failure.
const ELSEWHERE: &[Code] = &[
    Code::Begin,
    Code::PartitionEOF,
    Code::FileSystem,
    Code::QueueFull,
    Code::NodeUpdate,
    Code::WaitingForCoordinator,
    Code::UnknownGroup,
    Code::InProgress,
    Code::PreviousInProgress,
    Code::ExistingSubscription,
    Code::AssignPartitions,
    Code::RevokePartitions,
    Code::Conflict,
    Code::UnknownProtocol,
    Code::NotImplemented,
    Code::NoOffset,
    Code::Outdated,
    Code::KeySerialization,
    Code::ValueSerialization,
    Code::KeyDeserialization,
    Code::ValueDeserialization,
    Code::Partial,
    Code::ReadOnly,
    Code::NoEnt,
    Code::Underflow,
    Code::InvalidType,
    Code::PollExceeded,
    Code::NotConfigured,
    Code::Application,
    Code::AssignmentLost,
    Code::Noop,
    Code::AutoOffsetReset,
    Code::LogTruncation,
    Code::End,
    Code::NoError,
    Code::OffsetOutOfRange,
    Code::StaleControllerEpoch,
    Code::OffsetMetadataTooLarge,
    Code::IllegalGeneration,
    Code::InconsistentGroupProtocol,
    Code::InvalidGroupId,
    Code::UnknownMemberId,
    Code::InvalidSessionTimeout,
    Code::RebalanceInProgress,
    Code::InvalidCommitOffsetSize,
    Code::GroupAuthorizationFailed,
    Code::TopicAlreadyExists,
    Code::InvalidPartitions,
    Code::InvalidReplicationFactor,
    Code::InvalidReplicaAssignment,
    Code::InvalidConfig,
    Code::NotController,
    Code::InvalidTransactionalState,
    Code::InvalidTransactionTimeout,
    Code::TransactionCoordinatorFenced,
    Code::OperationNotAttempted,
    Code::ReassignmentInProgress,
    Code::DelegationTokenAuthDisabled,
    Code::DelegationTokenNotFound,
    Code::DelegationTokenOwnerMismatch,
    Code::DelegationTokenRequestNotAllowed,
    Code::DelegationTokenAuthorizationFailed,
    Code::DelegationTokenExpired,
    Code::InvalidPrincipalType,
    Code::NonEmptyGroup,
    Code::GroupIdNotFound,
    Code::FetchSessionIdNotFound,
    Code::InvalidFetchSessionEpoch,
    Code::ListenerNotFound,
    Code::TopicDeletionDisabled,
    Code::OffsetNotAvailable,
    Code::MemberIdRequired,
    Code::PreferredLeaderNotAvailable,
    Code::GroupMaxSizeReached,
    Code::FencedInstanceId,
    Code::EligibleLeadersNotAvailable,
    Code::ElectionNotNeeded,
    Code::NoReassignmentInProgress,
    Code::GroupSubscribedToTopic,
    Code::UnstableOffsetCommit,
    Code::ResourceNotFound,
    Code::DuplicateResource,
    Code::UnacceptableCredential,
    Code::InconsistentVoterSet,
    Code::InvalidUpdateVersion,
    Code::FeatureUpdateFailed,
    Code::FencedMemberEpoch,
    Code::UnreleasedInstanceId,
    Code::UnsupportedAssignor,
    Code::StaleMemberEpoch,
    Code::UnknownSubscriptionId,
    Code::TelemetryTooLarge,
    Code::EndAll,
];

/// A newer librdkafka with a code that nobody has thought about fails here.
#[test]
fn each_code_of_librdkafka_was_thought_about() {
    let mut kinds: BTreeMap<i32, Option<FailureKind>> = BTreeMap::new();
    let listed = DELIVERY.iter().flat_map(|(kind, codes)| codes.iter().map(move |code| (*code, Some(*kind))));
    for (code, kind) in listed.chain(ELSEWHERE.iter().map(|code| (*code, None))) {
        assert!(kinds.insert(code as i32, kind).is_none(), "{code:?} is listed twice");
        if let Some(kind) = kind {
            assert_eq!(kind_of(code), kind, "{code:?}");
        } else {
            assert_eq!(kind_of(code), FailureKind::Passing, "{code:?} comes with no record");
        }
    }
    let unlisted: Vec<Code> = (-1_000..10_000)
        .filter(|number| !kinds.contains_key(number))
        .filter_map(|number| RDKafkaRespErr::try_from(number).ok().map(Code::from))
        .collect();
    assert!(unlisted.is_empty(), "{unlisted:?}: what is to be done about these?");
    assert!(kinds.len() > 150, "{}", kinds.len());
}
