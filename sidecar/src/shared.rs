//! What requests, admin port and tasks have in common.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use flywheel_spool::Spool;
use tokio::sync::Semaphore;

use crate::config::Limits;
use crate::crowd::Crowd;
use crate::dead_letter::DeadLetters;
use crate::forward::brokers::Brokers;
use crate::ledger::Book;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::transcode::Scratch;

/// What `limits.bodies_bytes` is counted in.
pub(crate) const BODY_PIECE: u64 = 1024;

pub(crate) struct Shared {
    pub(crate) models: Models,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) book: Book,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) replay: bool,
    pub(crate) limits: Limits,
    /// Memory for bodies, in pieces of [`BODY_PIECE`] bytes.
    pub(crate) bodies: Semaphore,
    /// Clients whose bodies are on their way.
    pub(crate) senders: Arc<Crowd>,
    pub(crate) work: WorkPool,
    /// All spools of this process by directory name, for the gauges and for the end.
    pub(crate) spools: RwLock<BTreeMap<String, Spool>>,
    /// None where the log is a folder.
    pub(crate) brokers: Option<Arc<Brokers>>,
    /// Contracts parsed, spools recovered, sockets bound; false again once it stops.
    pub(crate) is_ready: AtomicBool,
}

impl Shared {
    pub(crate) fn spools(&self) -> Vec<(String, Spool)> {
        let spools = self.spools.read().unwrap_or_else(PoisonError::into_inner);
        spools.iter().map(|(name, spool)| (name.clone(), spool.clone())).collect()
    }

    pub(crate) fn add_spool(&self, name: &str, spool: Spool) {
        self.spools.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), spool);
    }

    pub(crate) fn spool(&self, name: &str) -> Option<Spool> {
        self.spools.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

/// Buffers for turning one body into records.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) scratch: Scratch,
    pub(crate) datum: Vec<u8>,
}

/// A datum's buffer above this length is not kept, so that one huge row does not hold its memory.
const DATUM_BYTES_KEPT: usize = 1 << 20;

/// Buffers between requests. They are in use only while a body is transcoded, which awaits nothing: there are never
/// more than the runtime has threads.
#[derive(Default)]
pub(crate) struct WorkPool {
    #[expect(clippy::vec_box, reason = "taken out and put back for each body: a pointer is moved, not the struct")]
    idle: Mutex<Vec<Box<Work>>>,
}

impl WorkPool {
    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&mut Work) -> T) -> T {
        let mut work = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let result = use_it(&mut work);
        work.datum.clear();
        work.datum.shrink_to(DATUM_BYTES_KEPT);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(work);
        result
    }
}
