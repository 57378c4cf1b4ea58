//! Hash maps for what is looked up for each row. The standard library's hash is made to stand against keys that are chosen to
//! collide and costs more than the look-up; this one is seeded by chance too, and its keys are coordinates and minted ids.

pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::quality::RandomState>;
