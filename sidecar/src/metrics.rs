//! What can be seen from outside, and one function for each event: its log line and its metric together.
//!
//! Labels are bounded: models are those with a contract, reasons, routes, kinds and results are closed lists.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `flywheel_requests_total` | route, status | answers of the API |
//! | `flywheel_accepted_rows_total` | model, kind | rows that the spool took |
//! | `flywheel_refused_rows_total` | model, kind, reason | rows answered with 413, 422 or 503 |
//! | `flywheel_sampled_out_rows_total` | model, kind | rows that sampling left out |
//! | `flywheel_dropped_rows_total` | model, kind, reason | accepted rows that are lost, as the ledger names them |
//! | `flywheel_accept_seconds` | model, kind | histogram: from the head of a request to its answer |
//! | `flywheel_dead_letters_total` | result (`kept`, `lost`) | refused bodies and undeliverable records |
//! | `flywheel_contract_version` | model | the version in force |
//! | `flywheel_sampling_rate` | model | the rate in force where no keep rule holds: the contract's, or the configuration's |
//! | `flywheel_contract_loads_total` | result (`loaded`, `refused`) | contracts put in force, and those that were not |
//! | `flywheel_invalid_contracts` | | contract files that are not in force for a fault, as of the last look |
//! | `flywheel_invalid_settings` | source (`configuration`, `key_file`) | 1 while it has a fault, as of the last look; what was read before stays |
//! | `flywheel_spool_bytes`, `flywheel_spool_max_bytes` | spool | on disk and on the way there; the bound |
//! | `flywheel_spool_unforwarded_records` | spool | accepted and not yet in the log |
//! | `flywheel_spool_failed` | spool | 1 while the disk takes nothing |
//! | `flywheel_recovery_torn_bytes`, `flywheel_recovery_skipped_bytes` | spool | what the last start cut off and stepped over |
//! | `flywheel_delivered_records_total` | spool, kind | records that the log has taken |
//! | `flywheel_forward_blocked` | spool, cause | 1 while records wait for this: `registry`, `schema`, `topic`, `denied`, `rejected`, `log`, `full`, `spool`, `dead_letter` |
//! | `flywheel_forward_alarm` | spool | 1 while they wait for a person |
//! | `flywheel_log_away` | | 1 while no Kafka broker answers; records wait in the spools |
//! | `flywheel_log_refused` | | 1 while the brokers do not let this client in, or it not them |
//! | `flywheel_ledger_records_total` | closed_by | ledger records written |

use std::path::Path;
use std::sync::atomic::AtomicU64;

use axum::http::StatusCode;
use flywheel_schemas::wire::Kind;
use flywheel_spool::Recovery;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::config::ConfigError;
use crate::forward::{Blocked, Loss};
use crate::privacy::{KeyFileError, is_world_readable};
use crate::record::RecordKind;
use crate::shared::Shared;

/// A route of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Predictions,
    Outcomes,
    SourceProgress,
    Time,
}

impl Route {
    fn name(self) -> &'static str {
        match self {
            Route::Predictions => "predictions",
            Route::Outcomes => "outcomes",
            Route::SourceProgress => "source_progress",
            Route::Time => "time",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rows {
    model: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonedRows {
    model: String,
    kind: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waiting {
    spool: String,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spool {
    spool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Delivered {
    spool: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedBy {
    closed_by: &'static str,
}

/// The name of the ledger's and the dead letters' gauges is that of their directory.
type SpoolGauge = Family<Spool, Gauge>;

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answer, Counter>,
    /// The answers that nearly every request gets, without a look-up.
    accepted_predictions: Counter,
    accepted_outcomes: Counter,
    accepted_rows: Family<Rows, Counter>,
    refused_rows: Family<ReasonedRows, Counter>,
    dropped_rows: Family<ReasonedRows, Counter>,
    sampled_out_rows: Family<Rows, Counter>,
    accept_seconds: Family<Rows, Histogram, fn() -> Histogram>,
    dead_letters: Family<Outcome, Counter>,
    contract_version: Family<Model, Gauge>,
    sampling_rate: Family<Model, Gauge<f64, AtomicU64>>,
    contract_loads: Family<Outcome, Counter>,
    invalid_contracts: Gauge,
    invalid_settings: Family<Source, Gauge>,
    spool_bytes: SpoolGauge,
    spool_max_bytes: SpoolGauge,
    spool_unforwarded: SpoolGauge,
    spool_failed: SpoolGauge,
    torn_bytes: SpoolGauge,
    skipped_bytes: SpoolGauge,
    delivered: Family<Delivered, Counter>,
    blocked: Family<Waiting, Gauge>,
    alarm: SpoolGauge,
    log_away: Gauge,
    log_refused: Gauge,
    ledger_records: Family<ClosedBy, Counter>,
}

/// 50 µs to 1.6 s, each bucket twice the last: an accepted row takes some 100 µs.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 16))
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("flywheel");
        let requests = Family::<Answer, Counter>::default();
        let accepted = |route: Route| requests.get_or_create_owned(&Answer { route: route.name(), status: 202 });
        let (accepted_predictions, accepted_outcomes) = (accepted(Route::Predictions), accepted(Route::Outcomes));
        let metrics = Metrics {
            registry: Registry::default(),
            requests,
            accepted_predictions,
            accepted_outcomes,
            accepted_rows: Family::default(),
            refused_rows: Family::default(),
            dropped_rows: Family::default(),
            sampled_out_rows: Family::default(),
            accept_seconds: Family::new_with_constructor(seconds),
            dead_letters: Family::default(),
            contract_version: Family::default(),
            sampling_rate: Family::default(),
            contract_loads: Family::default(),
            invalid_contracts: Gauge::default(),
            invalid_settings: Family::default(),
            spool_bytes: Family::default(),
            spool_max_bytes: Family::default(),
            spool_unforwarded: Family::default(),
            spool_failed: Family::default(),
            torn_bytes: Family::default(),
            skipped_bytes: Family::default(),
            delivered: Family::default(),
            blocked: Family::default(),
            alarm: Family::default(),
            log_away: Gauge::default(),
            log_refused: Gauge::default(),
            ledger_records: Family::default(),
        };
        let of = &metrics;
        registry.register("requests", "Answers of the API", of.requests.clone());
        registry.register("accepted_rows", "Rows that the spool took", of.accepted_rows.clone());
        registry.register("refused_rows", "Rows answered with 413, 422 or 503", of.refused_rows.clone());
        registry.register("dropped_rows", "Accepted rows that are lost", of.dropped_rows.clone());
        registry.register("sampled_out_rows", "Rows that sampling left out", of.sampled_out_rows.clone());
        let help = "From the head of a request to its answer";
        registry.register_with_unit("accept", help, Unit::Seconds, of.accept_seconds.clone());
        registry.register("dead_letters", "Refused bodies and undeliverable records", of.dead_letters.clone());
        registry.register("contract_version", "The contract version in force", of.contract_version.clone());
        registry.register("sampling_rate", "The rate in force where no keep rule holds", of.sampling_rate.clone());
        registry.register("contract_loads", "Contracts put in force, or refused", of.contract_loads.clone());
        let help = "Contract files that are not in force for a fault, as of the last look";
        registry.register("invalid_contracts", help, of.invalid_contracts.clone());
        let help = "1 while it has a fault, as of the last look; what was read before stays in force";
        registry.register("invalid_settings", help, of.invalid_settings.clone());
        registry.register_with_unit("spool", "On disk and on the way there", Unit::Bytes, of.spool_bytes.clone());
        registry.register_with_unit("spool_max", "The bound of a spool", Unit::Bytes, of.spool_max_bytes.clone());
        let help = "Accepted and not yet in the log";
        registry.register("spool_unforwarded_records", help, of.spool_unforwarded.clone());
        registry.register("spool_failed", "1 while the disk takes nothing", of.spool_failed.clone());
        let help = "What the last start cut off a torn tail";
        registry.register_with_unit("recovery_torn", help, Unit::Bytes, of.torn_bytes.clone());
        let help = "What the last start found damaged and stepped over";
        registry.register_with_unit("recovery_skipped", help, Unit::Bytes, of.skipped_bytes.clone());
        registry.register("delivered_records", "Records that the log has taken", of.delivered.clone());
        registry.register("forward_blocked", "1 while records wait for this", of.blocked.clone());
        registry.register("forward_alarm", "1 while records wait for a person", of.alarm.clone());
        let help = "1 while no Kafka broker answers; records wait in the spools";
        registry.register("log_away", help, of.log_away.clone());
        registry.register("log_refused", "1 while the brokers refuse this client", of.log_refused.clone());
        registry.register("ledger_records", "Ledger records written", of.ledger_records.clone());
        Metrics { registry, ..metrics }
    }

    /// The text that Prometheus reads (OpenMetrics 1.0).
    pub(crate) fn render(&self, shared: &Shared) -> String {
        for (name, spool) in shared.spools() {
            let (usage, labels) = (spool.usage(), Spool { spool: name });
            self.spool_bytes.get_or_create(&labels).set(signed(usage.bytes));
            self.spool_max_bytes.get_or_create(&labels).set(signed(usage.max_bytes));
            self.spool_unforwarded.get_or_create(&labels).set(signed(usage.next.saturating_sub(usage.cursor)));
            self.spool_failed.get_or_create(&labels).set(i64::from(spool.failure().is_some()));
        }
        self.log_away.set(i64::from(shared.brokers.as_ref().is_some_and(|brokers| brokers.are_away())));
        let refused = shared.brokers.as_ref().is_some_and(|brokers| brokers.refusal().is_some());
        self.log_refused.set(i64::from(refused));
        let mut out = String::new();
        // Writing to memory does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    pub(crate) fn accepted_rows(&self, model: &str, kind: Kind) -> Counter {
        self.accepted_rows.get_or_create_owned(&rows(model, kind))
    }

    pub(crate) fn sampled_out_rows(&self, model: &str, kind: Kind) -> Counter {
        self.sampled_out_rows.get_or_create_owned(&rows(model, kind))
    }

    pub(crate) fn accept_seconds(&self, model: &str, kind: Kind) -> Histogram {
        self.accept_seconds.get_or_create_owned(&rows(model, kind))
    }

    /// A request was answered. No log line: there may be thousands a second.
    pub(crate) fn answered(&self, route: Route, status: StatusCode) {
        match (route, status) {
            (Route::Predictions, StatusCode::ACCEPTED) => self.accepted_predictions.inc(),
            (Route::Outcomes, StatusCode::ACCEPTED) => self.accepted_outcomes.inc(),
            _ => self.requests.get_or_create(&Answer { route: route.name(), status: status.as_u16() }).inc(),
        };
    }

    /// A row was refused.
    pub(crate) fn refused(&self, model: &str, kind: Kind, reason: &'static str) {
        tracing::debug!(model, kind = kind.name(), reason, "row refused");
        let labels = ReasonedRows { model: model.to_owned(), kind: kind.name(), reason };
        self.refused_rows.get_or_create(&labels).inc();
    }

    /// Accepted rows are lost, and the ledger says so.
    pub(crate) fn lost(&self, model: &str, loss: &Loss) {
        let producer_id = uuid::Uuid::from_bytes(loss.producer_id);
        let (kind, reason, first_seq, last_seq) = (loss.kind.name(), loss.reason.name(), loss.first_seq, loss.last_seq);
        let rows = loss.count;
        tracing::error!(model, kind, reason, %producer_id, first_seq, last_seq, rows, "accepted rows are lost");
        let labels = ReasonedRows { model: model.to_owned(), kind, reason };
        self.dropped_rows.get_or_create(&labels).inc_by(rows);
    }

    /// A dead letter is in its spool.
    pub(crate) fn dead_letter_kept(&self) {
        self.dead_letters.get_or_create(&Outcome { result: "kept" }).inc();
    }

    /// A dead letter found no room. The client was told what was wrong all the same.
    pub(crate) fn dead_letter_lost(&self, model: &str, error: &flywheel_spool::AppendError) {
        tracing::debug!(model, %error, "dead letter lost");
        self.dead_letters.get_or_create(&Outcome { result: "lost" }).inc();
    }

    /// A contract is in force.
    pub(crate) fn contract_loaded(&self, model: &str, version: i32, rate: f64) {
        tracing::info!(model, version, rate, "contract in force");
        self.sampling_rate.get_or_create(&Model { model: model.to_owned() }).set(rate);
        self.contract_loads.get_or_create(&Outcome { result: "loaded" }).inc();
        self.contract_version.get_or_create(&Model { model: model.to_owned() }).set(i64::from(version));
    }

    /// A contract cannot be put in force; what was in force before stays so.
    pub(crate) fn contract_refused(&self, file: &str, fault: &str) {
        tracing::error!(file, fault, "contract refused; the one in force before stays, if there is one");
        self.contract_loads.get_or_create(&Outcome { result: "refused" }).inc();
    }

    /// The contract directory was looked through.
    pub(crate) fn contracts_read(&self, invalid: usize) {
        self.invalid_contracts.set(signed(invalid as u64));
    }

    /// The configuration was read again, for the settings that a running sidecar takes over.
    pub(crate) fn configuration_read(&self, fault: Option<&ConfigError>) {
        if let Some(fault) = fault {
            tracing::error!(%fault, "configuration not taken over; the one in force stays");
        }
        self.invalid_settings.get_or_create(&Source { source: "configuration" }).set(i64::from(fault.is_some()));
    }

    /// The key file was read, again or for the first time.
    pub(crate) fn key_file_read(&self, path: &Path, fault: Option<&KeyFileError>) {
        let file = path.display().to_string();
        match fault {
            Some(fault) => tracing::error!(file, %fault, "key file not taken over; the keys in force before stay"),
            None if is_world_readable(path) => {
                tracing::warn!(file, "everybody on this machine can read the key file; take the right from others");
            }
            None => {}
        }
        self.invalid_settings.get_or_create(&Source { source: "key_file" }).set(i64::from(fault.is_some()));
    }

    /// A spool is open.
    pub(crate) fn spool_recovered(&self, name: &str, recovery: &Recovery) {
        let labels = Spool { spool: name.to_owned() };
        self.torn_bytes.get_or_create(&labels).set(signed(recovery.torn_bytes));
        self.skipped_bytes.get_or_create(&labels).set(signed(recovery.skipped_bytes));
        if recovery.skipped_spans > 0 {
            let (spans, bytes) = (recovery.skipped_spans, recovery.skipped_bytes);
            tracing::error!(spool = name, spans, bytes, "damaged spans in the spool were stepped over and kept aside");
        } else {
            tracing::info!(spool = name, records = recovery.records, torn_bytes = recovery.torn_bytes, "spool open");
        }
    }

    /// Counts the records of one spool and kind that the log has taken; thousands a second, so without a log line.
    pub(crate) fn delivered(&self, spool: &str, kind: RecordKind) -> Counter {
        self.delivered.get_or_create_owned(&Delivered { spool: spool.to_owned(), kind: kind.name() })
    }

    /// Forwarding of a spool waits for something, or does so no longer. The forwarder has logged why.
    pub(crate) fn forward_blocked(&self, spool: &str, blocked: Option<&Blocked>) {
        for cause in Blocked::CAUSES {
            let is_it = blocked.is_some_and(|blocked| blocked.cause == cause);
            self.blocked.get_or_create(&Waiting { spool: spool.to_owned(), cause }).set(i64::from(is_it));
        }
        let alarm = blocked.is_some_and(|blocked| blocked.alarm);
        self.alarm.get_or_create(&Spool { spool: spool.to_owned() }).set(i64::from(alarm));
    }

    /// A ledger record is in its spool.
    pub(crate) fn ledger_written(&self, closed_by: &'static str) {
        self.ledger_records.get_or_create(&ClosedBy { closed_by }).inc();
    }

    /// The ledger could not be written; its counts go into the next record.
    pub(crate) fn ledger_postponed(&self, error: &dyn std::error::Error) {
        tracing::warn!(%error, "ledger record postponed");
    }
}

fn rows(model: &str, kind: Kind) -> Rows {
    Rows { model: model.to_owned(), kind: kind.name() }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
