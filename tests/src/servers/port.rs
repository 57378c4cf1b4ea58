//! Free ports below the range from which the system takes the local ports of outgoing connections, so that a server
//! that was stopped finds its port free when it starts again.

use std::net::TcpListener;

use super::ServerError;

const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;

/// A port that is free now, and whose next one is too (Kafka listens on both).
///
/// Another process may take it before it is used: the random choice makes that unlikely, and the scripts then say so.
pub fn free_port() -> Result<u16, ServerError> {
    let count = u128::from(LAST - FIRST);
    for _ in 0..200 {
        let offset = u16::try_from(uuid::Uuid::new_v4().as_u128() % count).unwrap_or_default();
        let port = FIRST + offset;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 1) {
            return Ok(port);
        }
    }
    Err(ServerError::NoPort(FIRST, LAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_given() {
        let port = free_port().unwrap();
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_eq!(taken.local_addr().unwrap().port(), port);
        assert!((0..1000).all(|_| free_port().unwrap() != port));
    }
}
