//! Three brokers. The first one is the controller too and is not to be killed; the others are.

use std::path::Path;

use super::{Kafka, Server, ServerError};

pub struct Cluster {
    /// Node 1 is the first.
    nodes: Vec<Kafka>,
}

/// Small: nothing is kept for long.
const HEAP: &str = "256m";

impl Cluster {
    pub fn start(dir: &Path) -> Result<Cluster, ServerError> {
        let heap = ("KAFKA_HEAP".to_owned(), HEAP.to_owned());
        let first = Server::start("kafka.sh", dir.join("kafka-1"), vec![], vec![heap.clone()]).map(Kafka)?;
        let controller = format!("127.0.0.1:{}", first.port() + 1);
        let mut nodes = vec![first];
        for node in ["2", "3"] {
            let environment = vec![
                heap.clone(),
                ("KAFKA_NODE".to_owned(), node.to_owned()),
                ("KAFKA_CONTROLLER".to_owned(), controller.clone()),
            ];
            nodes.push(Server::start("kafka.sh", dir.join(format!("kafka-{node}")), vec![], environment).map(Kafka)?);
        }
        Ok(Cluster { nodes })
    }

    /// `host:port` of all.
    pub fn address(&self) -> String {
        self.nodes.iter().map(|node| node.address()).collect::<Vec<_>>().join(",")
    }

    /// From 1.
    pub fn node(&mut self, number: i32) -> &mut Kafka {
        let index = usize::try_from(number - 1).unwrap_or_default();
        &mut self.nodes[index]
    }
}
