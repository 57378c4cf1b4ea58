//! Reads a body with its faults: keys, and the values of an envelope.

use std::ops::Range;

use flywheel_schemas::contract::Ids;
use flywheel_schemas::id;
use flywheel_schemas::types::Type;

use super::avro::put_bytes;
use super::fault::{Fault, Faults, Reason, Stop};
use super::identity::{Id, uuid_of};
use super::names::Names;
use super::scanner::{Broken, Scanner, unescape};
use super::value::{self, Trouble};
use super::{BODY_BYTES_MAX, Scratch, TEXT_BYTES_MAX};

/// A value of an envelope that may be absent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<T> {
    Absent,
    /// It came and is at fault, which is in the list.
    Faulty,
    Is(T),
}

#[derive(Debug)]
pub(super) struct Reader<'b, 's> {
    pub scanner: Scanner<'b>,
    pub faults: Faults,
    pub scratch: &'s mut Scratch,
    /// What is read is to be completed by something else, so nothing is missing yet.
    pub is_partial: bool,
}

impl<'b, 's> Reader<'b, 's> {
    /// Begins to read `body`, which must be text and an object; the scanner is at its brace.
    pub fn open(body: &'b [u8], scratch: &'s mut Scratch) -> Result<Reader<'b, 's>, Vec<Fault>> {
        scratch.clear();
        let mut faults = Faults::default();
        let text = if body.len() > BODY_BYTES_MAX {
            let detail = format!("the body has {} bytes; {BODY_BYTES_MAX} is the most", body.len());
            Err(faults.end(Reason::TooLarge, detail))
        } else {
            str::from_utf8(body)
                .map_err(|error| faults.end(Reason::InvalidUtf8, format!("byte {}: not UTF-8", error.valid_up_to())))
        };
        match text {
            Ok(text) => Reader::begin(text, faults, scratch),
            Err(Stop) => Err(faults.into_list()),
        }
    }

    /// Begins to read `text`, which must be an object; what stands in the buffers stays.
    pub fn begin(text: &'b str, faults: Faults, scratch: &'s mut Scratch) -> Result<Reader<'b, 's>, Vec<Fault>> {
        let mut reader = Reader { scanner: Scanner::new(text), faults, scratch, is_partial: false };
        reader.scanner.space();
        if reader.scanner.peek() == b'{' {
            return Ok(reader);
        }
        let found = reader.scanner.found();
        let stop = if reader.scanner.is_at_end() {
            let broken = reader.scanner.broken("the body is empty");
            reader.stop(broken)
        } else {
            match reader.scanner.skip() {
                Ok(()) => reader.faults.end(Reason::NotAnObject, format!("must be an object, found {found}")),
                Err(broken) => reader.stop(broken),
            }
        };
        let Stop = stop;
        Err(reader.faults.into_list())
    }

    /// Ends the reading: the body must be over.
    pub fn close(&mut self) -> Result<(), Stop> {
        self.scanner.space();
        if self.scanner.is_at_end() {
            return Ok(());
        }
        let broken = self.scanner.broken("something follows the object");
        Err(self.stop(broken))
    }

    #[cold]
    pub fn stop(&mut self, broken: Broken) -> Stop {
        self.faults.end(broken.reason, format!("byte {}: {}", broken.at, broken.what))
    }

    /// Lists the fault of the value at `path`.
    #[cold]
    pub fn trouble(&mut self, path: &[&str], trouble: Trouble) -> Result<(), Stop> {
        match trouble {
            Trouble::Broken(broken) => Err(self.stop(broken)),
            Trouble::Fault(reason, detail) => self.faults.add(path, reason, detail),
        }
    }

    /// Passes a value.
    pub fn skip(&mut self) -> Result<(), Stop> {
        self.scanner.skip().map_err(|broken| self.stop(broken))
    }

    /// Passes the opening brace or what stands between members: true if a member follows.
    #[inline]
    pub fn member(&mut self, is_first: bool) -> Result<bool, Stop> {
        let more = if is_first { self.scanner.first_member() } else { self.scanner.next_member() };
        more.map_err(|broken| self.stop(broken))
    }

    /// Reads a key, whose opening quote is passed, with its colon: its place among `names`. `next` is the place of the
    /// name that comes next in the order of the schema. A key that is not there is left in `scratch.key`.
    #[inline]
    pub fn key(&mut self, next: usize, names: &Names) -> Result<Option<usize>, Stop> {
        if names.quoted(next).is_some_and(|quoted| self.scanner.take_name(quoted)) {
            self.scanner.space();
            return Ok(Some(next));
        }
        let place = self.other_key(names)?;
        self.scanner.colon().map_err(|broken| self.stop(broken))?;
        Ok(place)
    }

    /// Reads the members of the body and closes it: `value` reads the value of the key at a place of `keys`, at most once
    /// each. Gives the places that came, a bit each; `unknown` is said of other keys.
    #[inline]
    pub fn members(
        &mut self,
        keys: &[&str],
        names: &Names,
        unknown: &'static str,
        mut value: impl FnMut(&mut Self, usize) -> Result<(), Stop>,
    ) -> Result<u32, Stop> {
        let mut seen = 0_u32;
        let mut next = 0;
        let mut more = self.member(true)?;
        while more {
            match self.key(next, names)? {
                None => {
                    self.faults.add(&[&self.scratch.key], Reason::UnknownField, unknown)?;
                    self.skip()?;
                }
                Some(place) if seen & (1 << place) != 0 => {
                    self.faults.add(&[keys[place]], Reason::DuplicateKey, "the key has come before")?;
                    self.skip()?;
                }
                Some(place) => {
                    seen |= 1 << place;
                    next = place + 1;
                    value(self, place)?;
                }
            }
            more = self.member(false)?;
        }
        self.close()?;
        Ok(seen)
    }

    fn other_key(&mut self, names: &Names) -> Result<Option<usize>, Stop> {
        let raw = self.scanner.string().map_err(|broken| self.stop(broken))?;
        if !raw.has_escapes
            && let Some(place) = names.find(raw.text)
        {
            return Ok(Some(place));
        }
        // Half a surrogate pair becomes a character that no name of a contract has.
        unescape(raw, &mut self.scratch.key);
        Ok(names.find(&self.scratch.key))
    }

    /// Reads `null`, if that is the next value.
    #[inline]
    pub fn null(&mut self) -> Result<bool, Stop> {
        if self.scanner.peek() != b'n' {
            return Ok(false);
        }
        self.scanner.literal("null").map_err(|broken| self.stop(broken))?;
        Ok(true)
    }

    /// Reads a text of the envelope and appends its Avro bytes to `scratch.head`, where they have the range given.
    /// `alter` sees the text first.
    pub fn text(&mut self, name: &str, alter: impl Fn(&str) -> Option<Id>) -> Result<Given<Range<usize>>, Stop> {
        if self.null()? {
            return Ok(Given::Absent);
        }
        match value::read_text(&mut self.scanner, &Type::String, &mut self.scratch.text) {
            Ok(text) if text.len() > TEXT_BYTES_MAX => {
                let detail = format!("the text has {} bytes; {TEXT_BYTES_MAX} is the most", text.len());
                self.faults.add(&[name], Reason::OutOfRange, detail)?;
                Ok(Given::Faulty)
            }
            Ok(text) => {
                let start = self.scratch.head.len();
                match alter(text) {
                    Some(id) => put_bytes(&mut self.scratch.head, id.as_bytes()),
                    None => put_bytes(&mut self.scratch.head, text.as_bytes()),
                }
                Ok(Given::Is(start..self.scratch.head.len()))
            }
            Err(trouble) => self.trouble(&[name], trouble).map(|()| Given::Faulty),
        }
    }

    /// Reads one of the words given; its place among them.
    pub fn word(&mut self, name: &str, words: &[&str]) -> Result<Given<usize>, Stop> {
        if self.null()? {
            return Ok(Given::Absent);
        }
        match value::read_text(&mut self.scanner, &Type::String, &mut self.scratch.text) {
            Ok(text) => {
                if let Some(place) = words.iter().position(|word| *word == text) {
                    return Ok(Given::Is(place));
                }
                self.faults.add(&[name], Reason::InvalidValue, format!("must be one of {}", words.join(", ")))?;
                Ok(Given::Faulty)
            }
            Err(trouble) => self.trouble(&[name], trouble).map(|()| Given::Faulty),
        }
    }

    /// Reads an integer from `min` to `max`.
    pub fn integer(&mut self, name: &str, ty: &Type, min: i64, max: i64) -> Result<Given<i64>, Stop> {
        if self.null()? {
            return Ok(Given::Absent);
        }
        match value::integer(&mut self.scanner, ty, None, i64::MIN, i64::MAX) {
            Ok(value) if (min..=max).contains(&value) => Ok(Given::Is(value)),
            Ok(_) => {
                self.faults.add(&[name], Reason::OutOfRange, format!("must be from {min} to {max}"))?;
                Ok(Given::Faulty)
            }
            Err(trouble) => self.trouble(&[name], trouble).map(|()| Given::Faulty),
        }
    }

    /// Reads an instant, in microseconds since the epoch and not before it.
    pub fn instant(&mut self, name: &str) -> Result<Given<i64>, Stop> {
        if self.null()? {
            return Ok(Given::Absent);
        }
        match value::timestamp(&mut self.scanner, &mut self.scratch.text) {
            Ok(value) if value >= 0 => Ok(Given::Is(value)),
            Ok(_) => {
                self.faults.add(&[name], Reason::OutOfRange, "must lie in the years 1970 to 9999")?;
                Ok(Given::Faulty)
            }
            Err(trouble) => self.trouble(&[name], trouble).map(|()| Given::Faulty),
        }
    }

    /// Reads a prediction id, with the event time in milliseconds that a minted one holds.
    pub fn prediction_id(&mut self, ids: Ids) -> Result<Given<(Id, Option<i64>)>, Stop> {
        const NAME: &str = "prediction_id";
        if self.null()? {
            return Ok(Given::Absent);
        }
        let text = match value::read_text(&mut self.scanner, &Type::String, &mut self.scratch.text) {
            Ok(text) => text,
            Err(trouble) => return self.trouble(&[NAME], trouble).map(|()| Given::Faulty),
        };
        let (id, detail) = match ids {
            Ids::Minted => (
                uuid_of(text).and_then(|uuid| Some((Id::from_uuid(&uuid), Some(id::time_ms(&uuid)?)))),
                "must be a UUIDv7 as hyphenated text, as a prediction's answer has it",
            ),
            Ids::Caller => (Id::from_text(text).map(|id| (id, None)), "must be a text of 1 to 128 bytes"),
        };
        match id {
            Some(id) => Ok(Given::Is(id)),
            None => self.faults.add(&[NAME], Reason::InvalidId, detail).map(|()| Given::Faulty),
        }
    }

    /// Lists a required value that did not come.
    #[cold]
    pub fn missing(&mut self, path: &[&str], detail: &'static str) -> Result<(), Stop> {
        self.faults.add(path, Reason::MissingRequired, detail)
    }
}
