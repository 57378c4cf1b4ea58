//! What happens to joiners from outside: signals, servers that die, and a proxy before each server that loses, delays and
//! refuses. Every kind occurs before any occurs again, in an order that a seed decides.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flywheel_tests::demo::by_way_of;
use flywheel_tests::proxy::{Fault, Http, Method, Tcp};
use flywheel_tests::servers::{Kafka, Set, free_port};

use crate::chaos::next;

/// For how many milliseconds something lasts. The session of a member of the group ends after 6 s.
const TIMES_MS: [u64; 4] = [50, 400, 1_500, 8_000];
/// How late a request or its answer is.
const DELAYS_MS: [u64; 3] = [300, 3_000, 30_000];
/// What a catalog or a gateway before it answers where it does not know what became of a commit.
const UNKNOWN: [u16; 4] = [500, 502, 503, 504];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kill,
    Stop,
    /// The files of a joiner's index cannot grow.
    FullDisk,
    CommitCutBefore,
    CommitCutAfter,
    CommitAnsweredAfter,
    /// Twice in a row, the second one being the attempt after the first.
    CommitsAnsweredAfter,
    CommitLate,
    CommitSlow,
    StoreAway,
    StoreCutBefore,
    StoreCutAfter,
    StoreSlow,
    LogCut,
    LogStalled,
    BrokerKilled,
    CatalogKilled,
}

const KINDS: [Kind; 17] = [
    Kind::Kill,
    Kind::Stop,
    Kind::FullDisk,
    Kind::CommitCutBefore,
    Kind::CommitCutAfter,
    Kind::CommitAnsweredAfter,
    Kind::CommitsAnsweredAfter,
    Kind::CommitLate,
    Kind::CommitSlow,
    Kind::StoreAway,
    Kind::StoreCutBefore,
    Kind::StoreCutAfter,
    Kind::StoreSlow,
    Kind::LogCut,
    Kind::LogStalled,
    Kind::BrokerKilled,
    Kind::CatalogKilled,
];

/// A source of faults.
pub struct Deck {
    random: u64,
    left: Vec<Kind>,
}

impl Deck {
    pub fn new(seed: u64) -> Deck {
        Deck { random: seed, left: Vec::new() }
    }

    pub fn draw(&mut self) -> Kind {
        if self.left.is_empty() {
            self.left = KINDS.to_vec();
        }
        let place = self.number(self.left.len() as u64);
        self.left.swap_remove(place as usize)
    }

    /// One less than `end`.
    pub fn number(&mut self, end: u64) -> u64 {
        next(&mut self.random) % end
    }

    pub fn time(&mut self) -> Duration {
        Duration::from_millis(TIMES_MS[self.number(4) as usize])
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(DELAYS_MS[self.number(3) as usize])
    }
}

/// Servers of its own, which are reached by way of proxies.
pub struct Place {
    pub set: Set,
    kafka: Tcp,
    catalog: Http,
    store: Http,
}

impl Place {
    pub fn start(dir: &Path) -> Place {
        let port = free_port().unwrap();
        let (broker, behind) = Kafka::start_behind(dir, port).unwrap();
        let kafka = Tcp::before(&behind, port).unwrap();
        let set = Set::start_with(dir.to_owned(), broker).unwrap();
        let (catalog, store) = (Http::before(set.catalog.address()).unwrap(), Http::before(set.s3.address()).unwrap());
        Place { set, kafka, catalog, store }
    }

    /// The options that bring the demonstration to the proxies.
    pub fn on_servers(&self, prefix: &str) -> Vec<String> {
        by_way_of(&self.set, &self.kafka.address(), &self.catalog.url(), &self.store.url(), prefix)
    }

    /// Brings about what does not concern one joiner alone. How many faults that was, those aside that [`Place::met`]
    /// counts when a request meets them.
    pub fn trouble(&mut self, kind: Kind, deck: &mut Deck) -> usize {
        let commit = |fault| self.catalog.next(Method::POST, fault);
        match kind {
            Kind::Kill | Kind::Stop | Kind::FullDisk => return 0,
            Kind::CommitCutBefore => commit(Fault::CutBefore),
            Kind::CommitCutAfter => commit(Fault::CutAfter),
            Kind::CommitAnsweredAfter => commit(Fault::AnsweredAfter(UNKNOWN[deck.number(4) as usize])),
            Kind::CommitsAnsweredAfter => {
                for _ in 0..2 {
                    commit(Fault::AnsweredAfter(UNKNOWN[deck.number(4) as usize]));
                }
            }
            Kind::CommitLate => commit(Fault::Late(deck.delay())),
            Kind::CommitSlow => commit(Fault::Slow(deck.delay())),
            Kind::StoreCutBefore => self.store.next(Method::PUT, Fault::CutBefore),
            Kind::StoreCutAfter => self.store.next(Method::PUT, Fault::CutAfter),
            Kind::StoreSlow => self.store.next(Method::PUT, Fault::Slow(deck.delay())),
            Kind::StoreAway => {
                self.store.every(Fault::Refused(503), deck.time());
                return 1;
            }
            Kind::LogCut => {
                self.kafka.cut();
                return 1;
            }
            Kind::LogStalled => {
                self.kafka.stall(deck.time());
                return 1;
            }
            Kind::BrokerKilled => {
                self.set.kafka.kill().unwrap();
                self.set.kafka.restart().unwrap();
                return 1;
            }
            Kind::CatalogKilled => {
                self.set.catalog.kill().unwrap();
                self.set.catalog.restart().unwrap();
                return 1;
            }
        }
        0
    }

    /// Faults that a request has met.
    pub fn met(&self) -> usize {
        self.catalog.met() + self.store.met()
    }

    /// Takes back what no request has met.
    pub fn calm(&self) {
        self.catalog.calm();
        self.store.calm();
    }
}

/// Forbids a process to write to any file, or allows it again. The process must ignore SIGXFSZ, to be told as by a full
/// disk.
pub fn full_disk(pid: &str, full: bool) {
    let limit = if full { "--fsize=1:unlimited" } else { "--fsize=unlimited" };
    // One that was killed meanwhile has no limit any more.
    let _ = Command::new("prlimit").args(["--pid", pid, limit]).status().expect("prlimit (Debian: util-linux)");
}
