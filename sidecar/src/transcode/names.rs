//! Which of the known names a key is: open addressing over the names of one object, at most half full.
//!
//! The table holds names of the contract alone, so a hostile key costs one short walk and nothing else.

/// What stands behind a name in a body without white space.
const END: &[u8] = b"\":";

/// The index of a set of names.
#[derive(Debug)]
pub(super) struct Names {
    /// Each with a closing quote and a colon, as it stands in most bodies.
    quoted: Vec<Box<[u8]>>,
    /// Index of the name + 1; 0 is free.
    slots: Vec<u32>,
}

impl Names {
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Names {
        let quoted: Vec<Box<[u8]>> = names.into_iter().map(|name| [name.as_bytes(), END].concat().into()).collect();
        let mut slots = vec![0; (quoted.len() * 2).next_power_of_two().max(2)];
        let mask = slots.len() - 1;
        for (number, name) in (1..).zip(&quoted) {
            let mut at = hash(&name[..name.len() - END.len()]) & mask;
            while slots[at] != 0 {
                at = (at + 1) & mask;
            }
            slots[at] = number;
        }
        Names { quoted, slots }
    }

    pub fn len(&self) -> usize {
        self.quoted.len()
    }

    /// The name at `place`, with a closing quote and a colon.
    #[inline]
    pub fn quoted(&self, place: usize) -> Option<&[u8]> {
        self.quoted.get(place).map(|name| &**name)
    }

    /// The place of `name` among the names.
    pub fn find(&self, name: &str) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut at = hash(name.as_bytes()) & mask;
        loop {
            let index = (self.slots[at] as usize).checked_sub(1)?;
            if self.quoted[index].strip_suffix(END) == Some(name.as_bytes()) {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }
}

fn hash(name: &[u8]) -> usize {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = name.len() as u64;
    let mut words = name.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        hash = (hash.rotate_left(23) ^ word).wrapping_mul(K);
    }
    let tail = words.remainder().iter().fold(0, |tail, byte| (tail << 8) | u64::from(*byte));
    hash = (hash.rotate_left(23) ^ tail).wrapping_mul(K);
    (hash >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_name_and_no_other() {
        let names: Vec<String> = (0..300).map(|n| format!("feature_{n}")).collect();
        let index = Names::new(names.iter().map(String::as_str));
        for (at, name) in names.iter().enumerate() {
            assert_eq!(index.find(name), Some(at));
        }
        assert_eq!(index.find("feature_300"), None);
        assert_eq!(index.find(""), None);
        assert_eq!(Names::new([]).find("a"), None);
    }
}
