//! A small HTTP/1.1 client that says exactly what a test wants said.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Nothing here takes longer, even on a busy machine.
const WITHIN: Duration = Duration::from_secs(30);

pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// One connection, kept alive.
pub struct Client {
    socket: Box<dyn Socket>,
    read: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let line = self.head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    }
}

impl Client {
    pub async fn tcp(address: SocketAddr) -> Client {
        Client { socket: Box::new(TcpStream::connect(address).await.unwrap()), read: Vec::new() }
    }

    pub async fn uds(path: &Path) -> Client {
        Client { socket: Box::new(UnixStream::connect(path).await.unwrap()), read: Vec::new() }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        self.answer().await
    }

    pub async fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.post_with(path, "application/json", "", body).await
    }

    pub async fn batch(&mut self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.post_with(path, "application/x-ndjson", "", body).await
    }

    /// In a replay.
    pub async fn post_at(&mut self, path: &str, time: &str, body: impl AsRef<[u8]>) -> Answer {
        self.post_with(path, "application/json", &format!("Flywheel-Time: {time}\r\n"), body).await
    }

    /// `headers` are whole lines.
    pub async fn post_with(&mut self, path: &str, ty: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {ty}\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        self.send(head.as_bytes()).await;
        self.send(body).await;
        self.answer().await
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    pub async fn answer(&mut self) -> Answer {
        tokio::time::timeout(WITHIN, self.read_answer()).await.expect("an answer in time")
    }

    /// Waits for the server to close the connection without another byte.
    pub async fn closed(&mut self) {
        let read = tokio::time::timeout(WITHIN, self.socket.read(&mut [0])).await.expect("an end in time");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }

    async fn read_answer(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.fill().await;
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length: usize = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
        while self.read.len() < length {
            self.fill().await;
        }
        answer.body = self.read.drain(..length).collect();
        answer
    }

    async fn fill(&mut self) {
        let read = self.socket.read_buf(&mut self.read).await.unwrap();
        assert!(read > 0, "the connection ended in the middle of an answer: {:?}", String::from_utf8_lossy(&self.read));
    }
}

/// Waits for something to become so, with a bound.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + WITHIN;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
