use super::*;
use crate::label::Op;

impl Index {
    /// Spoils what is there about a prediction.
    pub(crate) fn damage(&self, prediction_id: &str) {
        let from = start(prediction_id);
        let keys: Vec<_> = self.rows.prefix(from).map(|entry| entry.key().unwrap()).collect();
        for key in keys {
            self.rows.insert(key, b"?").unwrap();
        }
    }
}

fn statement(at_ms: i64, partition: i32, offset: i64) -> Statement {
    Statement {
        event_id: format!("e{offset}"),
        outcome_id: String::new(),
        revision: 0,
        op: Op::Assert,
        op_time_us: at_ms * 1000,
        event_time_us: at_ms * 1000,
        ingest_time_ms: at_ms,
        partition,
        offset,
        contract_version: None,
        labels: Vec::new(),
        values: Vec::new(),
    }
}

fn row(id: &str, at_ms: i64, offset: i64) -> (String, Statement) {
    (id.to_owned(), statement(at_ms, 0, offset))
}

fn offsets(index: &Index, id: &str, before_ms: i64) -> Vec<i64> {
    index.statements(id, before_ms, usize::MAX).unwrap().into_iter().map(|statement| statement.offset).collect()
}

#[test]
fn gives_what_is_known_before_a_tick_in_order_of_ingest() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    index.apply(vec![row("a", 20, 2), row("a", 10, 1), row("b", 5, 0), row("a", 30, 3)], &BTreeMap::new()).unwrap();
    assert_eq!(offsets(&index, "a", 30), [1, 2]);
    assert_eq!(offsets(&index, "a", i64::MAX), [1, 2, 3]);
    assert_eq!(offsets(&index, "a", 10), [0i64; 0]);
    assert_eq!(offsets(&index, "b", 6), [0]);
    assert_eq!(offsets(&index, "c", 6), [0i64; 0]);
}

#[test]
fn ids_that_begin_alike_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    let ids = ["", "a", "ab", "a\0", "a\0\0", "a\0b", "a\u{7f}"];
    for (offset, id) in (0..).zip(ids) {
        index.apply(vec![row(id, 7, offset)], &BTreeMap::new()).unwrap();
    }
    for (offset, id) in (0..).zip(ids) {
        assert_eq!(offsets(&index, id, i64::MAX), [offset], "{id:?}");
    }
}

#[test]
fn a_walk_finds_what_look_ups_find() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    let mut ids: Vec<String> = ["", "a", "ab", "a\0", "a\0\0", "a\0b", "a\u{1}"].map(str::to_owned).to_vec();
    ids.extend((0..1000).map(|n| format!("id-{n:04}")));
    let mut rows = Vec::new();
    for (n, id) in (0_i64..).zip(&ids).filter(|(n, _)| n % 3 != 0) {
        rows.extend((0..n % 4 + 1).map(|copy| row(id, 10 + copy, 10 * n + copy)));
    }
    index.apply(rows.clone(), &BTreeMap::new()).unwrap();
    // Neighbours, some of which have nothing; then far apart; then one past the end.
    let near = ids[..100].iter();
    let far = ids[100..].iter().step_by(97);
    let mut wanted: Vec<(&str, i64)> = near.chain(far).map(|id| (id.as_str(), 10 + id.len() as i64 % 4)).collect();
    wanted.push(("z", i64::MAX));
    wanted.reverse();
    for max in [usize::MAX, 1] {
        let found = index.statements_of(wanted.clone(), max).unwrap();
        for (id, before_ms) in &wanted {
            let one_by_one = index.statements(id, *before_ms, max).unwrap();
            assert_eq!(found.get(id).cloned().unwrap_or_default(), one_by_one, "{id:?} before {before_ms}, {max}");
        }
        assert!(found.len() > 50 && found.values().all(|statements| !statements.is_empty()));
    }
    assert!(index.statements_of(Vec::new(), 1).unwrap().is_empty());
}

#[test]
fn survives_closing_with_its_stamp() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    index.apply(vec![row("a", 1, 0)], &BTreeMap::from([(0, 1), (3, 9)])).unwrap();
    index.apply(vec![row("a", 2, 1)], &BTreeMap::from([(0, 2)])).unwrap();
    drop(index);
    let index = Index::open(dir.path(), "t").unwrap();
    assert_eq!(index.stamp().unwrap(), BTreeMap::from([(0, 2), (3, 9)]));
    assert_eq!(offsets(&index, "a", 9), [0, 1]);
    assert!(index.bytes().unwrap() > 0);
}

#[test]
fn of_another_table_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    index.apply(vec![row("a", 1, 0)], &BTreeMap::from([(0, 1)])).unwrap();
    drop(index);
    let index = Index::open(dir.path(), "another").unwrap();
    assert_eq!(index.stamp().unwrap(), BTreeMap::new());
    assert_eq!(offsets(&index, "a", 9), [0i64; 0]);
}

#[test]
fn damaged_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    index.apply(vec![row("a", 1, 0)], &BTreeMap::from([(0, 1)])).unwrap();
    drop(index);
    damage(dir.path());
    let index = Index::open(dir.path(), "t").unwrap();
    assert_eq!(index.stamp().unwrap(), BTreeMap::new());
    index.apply(vec![row("a", 1, 0)], &BTreeMap::from([(0, 1)])).unwrap();
    assert_eq!(offsets(&index, "a", 9), [0]);
}

/// Overwrites the beginning of every file in the folder.
fn damage(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().take(64).for_each(|byte| *byte = 0xa5);
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn in_use_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    index.apply(vec![row("a", 1, 0)], &BTreeMap::from([(0, 1)])).unwrap();
    assert!(matches!(Index::open(dir.path(), "t"), Err(IndexError::InUse { .. })));
    assert_eq!(offsets(&index, "a", 9), [0]);
}

#[test]
fn cleared_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    index.apply(vec![row("a", 1, 0)], &BTreeMap::from([(0, 1)])).unwrap();
    index.clear().unwrap();
    assert_eq!(index.stamp().unwrap(), BTreeMap::new());
    assert_eq!(offsets(&index, "a", 9), [0i64; 0]);
}

#[test]
fn expires_by_the_time_in_minted_ids() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    let id =
        |at_ms: u64| uuid::Builder::from_unix_timestamp_millis(at_ms, &[7; 10]).into_uuid().hyphenated().to_string();
    let base = 1_357_034_400_000;
    let rows: Vec<_> = (0..10).map(|n| row(&id(base + n), 9, i64::try_from(n).unwrap())).collect();
    index.apply(rows.clone(), &BTreeMap::new()).unwrap();
    let before_ms = i64::try_from(base + 4).unwrap();
    assert_eq!(index.expired_before_ms().unwrap(), 0);
    assert!(index.expire(before_ms).unwrap());
    assert_eq!(index.expired_before_ms().unwrap(), before_ms);
    assert_eq!(index.rows.len().unwrap(), 6);
    // Neither an earlier call nor a late statement brings anything back.
    assert!(index.expire(before_ms - 3).unwrap());
    assert_eq!(index.expired_before_ms().unwrap(), before_ms);
    index.apply(vec![row(&id(base + 3), 9, 20), row(&id(base + 4), 9, 21)], &BTreeMap::new()).unwrap();
    assert_eq!(offsets(&index, &id(base + 3), i64::MAX), [0i64; 0]);
    assert_eq!(offsets(&index, &id(base + 4), i64::MAX), [4, 21]);
}

#[test]
fn expires_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    let id = |n: usize| id::from_parts(i64::try_from(n).unwrap(), [7; 10]).to_string();
    let rows: Vec<_> = (0..EXPIRE_MAX + 1).map(|n| row(&id(n), 9, 1)).collect();
    index.apply(rows.clone(), &BTreeMap::new()).unwrap();
    let all = i64::try_from(rows.len()).unwrap();
    assert!(!index.expire(all).unwrap());
    assert_eq!(index.rows.len().unwrap(), 1);
    assert!(index.expire(all).unwrap());
    assert!(index.rows.is_empty().unwrap());
}

#[test]
fn ids_of_a_span_are_those_with_something_known_before_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), "t").unwrap();
    let minted = |ms: i64, n: u8| id::from_parts(ms, [n; 10]).to_string();
    let ids = [minted(100, 1), minted(100, 2), minted(199, 3), minted(200, 4)];
    let rows: Vec<_> = ids.iter().enumerate().map(|(n, id)| row(id, 1000 + n as i64, n as i64)).collect();
    index.apply(rows.clone(), &BTreeMap::new()).unwrap();
    index.apply(vec![row(&ids[0], 2000, 9)], &BTreeMap::new()).unwrap();
    assert_eq!(index.ids(100, 200, i64::MAX).unwrap(), ids[..3]);
    assert_eq!(index.ids(101, 201, i64::MAX).unwrap(), ids[2..]);
    assert_eq!(index.ids(100, 201, 1001).unwrap(), ids[..1], "what is ingested later is not known");
    assert_eq!(index.ids(-5, 0, i64::MAX).unwrap(), Vec::<String>::new());
}

#[test]
fn an_index_in_use_is_not_deleted_and_a_damaged_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("m");
    let index = Index::open(&place, "t").unwrap();
    assert!(matches!(Index::delete(&place), Err(IndexError::InUse { .. })));
    drop(index);
    Index::delete(&place).unwrap();
    assert!(!place.exists());
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("0.jnl"), "?").unwrap();
    Index::delete(&place).unwrap();
    assert!(!place.exists());
}
