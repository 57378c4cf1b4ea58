//! The load: kept connections of one thread that never sleeps.
//!
//! It spins, so that no answer costs the server the waking of another core, as none does whose client is on another
//! machine; and so that it is never late itself.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Nothing takes longer on a machine that works.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A POST with its head.
pub fn request(path: &str, media_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: sidecar\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// A connection with at most one request on its way.
pub struct Connection<'a> {
    stream: TcpStream,
    request: &'a [u8],
    /// Of the request, how much is still to be written.
    unsent: usize,
    /// Longer than an answer.
    answer: Vec<u8>,
    got: usize,
    accepted_bytes: usize,
    /// When the request was due.
    pub due: Instant,
    pub is_busy: bool,
}

impl<'a> Connection<'a> {
    /// Connects, and learns from a first request how long a 202 is: ids, dates and heads do not vary in length.
    pub fn open(address: SocketAddr, request: &'a [u8]) -> Result<Connection<'a>, Box<dyn Error>> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        (&stream).write_all(request)?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut piece = [0; 16 << 10];
            match (&stream).read(&mut piece)? {
                0 => return Err("the server closed the connection".into()),
                length => answer.extend_from_slice(&piece[..length]),
            }
        }
        stream.set_nonblocking(true)?;
        let accepted_bytes = answer.len();
        answer.resize(accepted_bytes + (4 << 10), 0);
        let due = Instant::now();
        let connection =
            Connection { stream, request, unsent: 0, answer, got: accepted_bytes, accepted_bytes, due, is_busy: false };
        connection.check()?;
        Ok(connection)
    }

    /// Begins the next request.
    pub fn begin(&mut self, due: Instant) -> Result<(), Box<dyn Error>> {
        (self.unsent, self.got, self.due, self.is_busy) = (self.request.len(), 0, due, true);
        self.send().map(|_| ())
    }

    /// Writes what can be written without waiting; true once nothing is left.
    fn send(&mut self) -> Result<bool, Box<dyn Error>> {
        while self.unsent > 0 {
            let from = self.request.len() - self.unsent;
            match self.stream.write(&self.request[from..]) {
                Ok(written) => self.unsent -= written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Does what can be done without waiting; true once the answer is whole.
    pub fn turn(&mut self) -> Result<bool, Box<dyn Error>> {
        if !self.send()? {
            return Ok(false);
        }
        match self.stream.read(&mut self.answer[self.got..]) {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(read) => {
                self.got += read;
                self.is_busy = !self.is_whole();
                Ok(!self.is_busy)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is_whole(&self) -> bool {
        if self.is_accepted() {
            return self.got == self.accepted_bytes;
        }
        let text = String::from_utf8_lossy(&self.answer[..self.got]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        length.is_some_and(|length: usize| body.len() >= length)
    }

    /// Whether the last answer is a 202.
    pub fn is_accepted(&self) -> bool {
        self.answer[..self.got].starts_with(b"HTTP/1.1 202")
    }

    /// Spins until the answer is whole.
    pub fn finish(&mut self) -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        while self.is_busy && !self.turn()? {
            if start.elapsed() > ANSWER_WITHIN {
                return Err("no answer".into());
            }
        }
        Ok(())
    }

    /// The last answer, where it is no 202, as an error.
    pub fn check(&self) -> Result<(), Box<dyn Error>> {
        if self.is_accepted() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&self.answer[..self.got]).into())
    }
}

/// As many connections to one server.
pub fn connect<'a>(
    address: SocketAddr,
    request: &'a [u8],
    connections: usize,
) -> Result<Vec<Connection<'a>>, Box<dyn Error>> {
    (0..connections).map(|_| Connection::open(address, request)).collect()
}

/// Requests a second where each connection always has one on its way.
pub fn closed_loop(connections: &mut [Connection], time: Duration) -> Result<f64, Box<dyn Error>> {
    for connection in &mut *connections {
        connection.begin(Instant::now())?;
    }
    let start = Instant::now();
    let mut answered = 0_u32;
    while start.elapsed() < time {
        for connection in &mut *connections {
            connection.finish()?;
            connection.begin(start)?;
            answered += 1;
        }
    }
    let rate = f64::from(answered) / start.elapsed().as_secs_f64();
    for connection in connections {
        connection.finish()?;
        connection.check()?;
    }
    Ok(rate)
}

/// Requests at a steady rate, whatever the answers take. `answered` gets each connection that has an answer: the time from
/// [`Connection::due`], at which it should have begun, has in it what it waited for a free connection or for the server.
pub fn open_loop(
    connections: &mut [Connection],
    rate: f64,
    time: Duration,
    mut answered: impl FnMut(&Connection) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let count = (rate * time.as_secs_f64()) as u32;
    let (mut begun, mut ended) = (0, 0);
    while ended < count {
        if start.elapsed() > 2 * time + ANSWER_WITHIN {
            return Err("the server does not keep up".into());
        }
        for connection in &mut *connections {
            if connection.is_busy && connection.turn()? {
                answered(connection)?;
                ended += 1;
            }
            let due = start + Duration::from_secs_f64(f64::from(begun) / rate);
            if !connection.is_busy && begun < count && due <= Instant::now() {
                connection.begin(due)?;
                begun += 1;
            }
        }
    }
    Ok(())
}

/// The time within which `share` of the answers came, in microseconds.
pub fn quantile(taken: &mut [Duration], share: f64) -> f64 {
    taken.sort();
    let place = ((taken.len() as f64 * share).ceil() as usize).clamp(1, taken.len().max(1)) - 1;
    taken.get(place).map_or(f64::NAN, |taken| taken.as_secs_f64() * 1e6)
}
