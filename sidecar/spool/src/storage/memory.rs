//! A file system in memory that fails where a test wants it to, and whose power can be cut.
//!
//! It is as unkind as real ones are: what is not synced is lost, torn or garbled by a power cut, names included; and after
//! a sync that failed, the next one of the same file succeeds and makes nothing durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard};

use super::*;
use crate::watermark::lock;

#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    state: Arc<Mutex<State>>,
    /// Whether writes are held up.
    gate: Arc<(Mutex<bool>, Condvar)>,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    durable_names: Names,
    locks: BTreeSet<PathBuf>,
    faults: Faults,
    /// Operations that may still be done before the machine stops.
    fuel: Option<u64>,
}

type Names = BTreeMap<PathBuf, Arc<Mutex<Node>>>;

#[derive(Debug, Default)]
struct Node {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// A sync failed: the kernel has dropped what it held back, and says nothing about it any more.
    lost: bool,
}

/// What goes wrong next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// So many writes find no space, each after this many bytes.
    pub(crate) full_writes: u32,
    pub(crate) full_after_bytes: usize,
    pub(crate) failed_syncs: u32,
    pub(crate) failed_cuts: u32,
    pub(crate) failed_creates: u32,
    /// Every write takes this many bytes at most.
    pub(crate) short_write_bytes: Option<usize>,
}

fn take(count: &mut u32) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn enospc() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl State {
    /// False once the machine has stopped.
    fn operate(&mut self) -> bool {
        match &mut self.fuel {
            None => true,
            Some(0) => false,
            Some(fuel) => {
                *fuel -= 1;
                true
            }
        }
    }

    fn in_dir(&self, dir: &Path) -> Vec<PathBuf> {
        self.names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect()
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn fail(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    pub(crate) fn mend(&self) {
        self.state().faults = Faults::default();
    }

    /// The machine stops after so many operations more: every later one fails and changes nothing.
    pub(crate) fn stop_after(&self, operations: u64) {
        self.state().fuel = Some(operations);
    }

    /// The machine runs again after a process was killed: all that was written is there.
    pub(crate) fn run_again(&self) {
        let mut state = self.state();
        state.fuel = None;
        state.faults = Faults::default();
    }

    /// The machine runs again after the power was off. `chance` decides what becomes of what was not synced.
    pub(crate) fn cut_power(&self, mut chance: impl FnMut(usize) -> usize) {
        let mut state = self.state();
        if chance(2) == 0 {
            state.names = state.durable_names.clone();
        }
        for node in state.names.values() {
            let mut node = lock(node);
            let Node { content, durable, .. } = &mut *node;
            let mut left = durable.clone();
            if content.len() > durable.len() {
                let kept = chance(content.len() - durable.len() + 1);
                let unsynced = &content[durable.len()..durable.len() + kept];
                match chance(3) {
                    0 => left.extend(unsynced),
                    1 => left.extend(unsynced.iter().map(|_| 0)),
                    _ => {
                        let hole = chance(kept + 1);
                        left.extend(unsynced.iter().enumerate().map(|(at, &byte)| if at < hole { byte } else { 0 }));
                    }
                }
            }
            *node = Node { content: left.clone(), durable: left, lost: false };
        }
        state.durable_names = state.names.clone();
        state.fuel = None;
        state.faults = Faults::default();
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// The bytes of a file, to look at or to damage.
    pub(crate) fn with<T>(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let node = self.state().names.get(path).cloned().unwrap_or_else(|| panic!("no {}", path.display()));
        let mut node = lock(&node);
        let result = change(&mut node.content);
        node.durable = node.content.clone();
        result
    }

    /// Makes a file, or gives it another content.
    pub(crate) fn put(&self, path: &Path, content: Vec<u8>) {
        let mut state = self.state();
        let node = Arc::new(Mutex::new(Node { durable: content.clone(), content, lost: false }));
        state.names.insert(path.to_path_buf(), node.clone());
        state.durable_names.insert(path.to_path_buf(), node);
    }

    /// Writes wait as long as this is held.
    pub(crate) fn hold_writes(&self) -> Hold {
        *lock(&self.gate.0) = true;
        Hold(self.gate.clone())
    }

    /// The same files once more, apart from these, all of it synced.
    pub(crate) fn duplicate(&self) -> Memory {
        let copy = self.duplicate_unsynced();
        let state = copy.state();
        for node in state.names.values() {
            let mut node = lock(node);
            node.durable = node.content.clone();
        }
        drop(state);
        copy
    }

    /// The same files once more, apart from these.
    pub(crate) fn duplicate_unsynced(&self) -> Memory {
        let state = self.state();
        let names: Names = state
            .names
            .iter()
            .map(|(path, node)| {
                let Node { content, durable, lost } = &*lock(node);
                let node = Node { content: content.clone(), durable: durable.clone(), lost: *lost };
                (path.clone(), Arc::new(Mutex::new(node)))
            })
            .collect();
        let copy = State { durable_names: names.clone(), names, ..State::default() };
        Memory { state: Arc::new(Mutex::new(copy)), gate: Arc::default() }
    }
}

#[derive(Debug)]
pub(crate) struct Hold(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Hold {
    fn drop(&mut self) {
        *lock(&self.0.0) = false;
        self.0.1.notify_all();
    }
}

#[derive(Debug)]
struct MemoryFile {
    memory: Memory,
    node: Arc<Mutex<Node>>,
}

impl StorageFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let gate = &self.memory.gate;
        drop(gate.1.wait_while(lock(&gate.0), |held| *held));
        let mut state = self.memory.state();
        if !state.operate() {
            return Err(eio());
        }
        // The last operation of a machine that stops is done by half.
        let stops = state.fuel == Some(0);
        let is_full = take(&mut state.faults.full_writes);
        let most = if is_full {
            state.faults.full_after_bytes.min(bytes.len() - 1)
        } else if stops {
            bytes.len() / 2
        } else {
            state.faults.short_write_bytes.unwrap_or(bytes.len()).min(bytes.len())
        };
        let mut node = lock(&self.node);
        let offset = offset as usize;
        if most > 0 {
            let end = node.content.len().max(offset + most);
            node.content.resize(end, 0);
            node.content[offset..offset + most].copy_from_slice(&bytes[..most]);
            // What is written over something durable counts as durable: only headers of broken segments are.
            let common = node.durable.len().min(offset + most);
            if offset < common {
                let part = node.content[offset..common].to_vec();
                node.durable[offset..common].copy_from_slice(&part);
            }
        }
        if is_full {
            return Err(enospc());
        }
        if stops { Err(eio()) } else { Ok(most) }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let node = lock(&self.node);
        let from = (offset as usize).min(node.content.len());
        let count = bytes.len().min(node.content.len() - from);
        bytes[..count].copy_from_slice(&node.content[from..from + count]);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.memory.state();
        if !state.operate() {
            return Err(eio());
        }
        let mut node = lock(&self.node);
        if take(&mut state.faults.failed_syncs) {
            node.lost = true;
            return Err(eio());
        }
        if !node.lost {
            node.durable = node.content.clone();
        }
        Ok(())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut state = self.memory.state();
        if !state.operate() || take(&mut state.faults.failed_cuts) {
            return Err(eio());
        }
        lock(&self.node).content.truncate(length as usize);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.node).content.len() as u64)
    }
}

struct MemoryLock {
    memory: Memory,
    path: PathBuf,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.memory.state().locks.remove(&self.path);
    }
}

impl Storage for Memory {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.state();
        if !state.operate() || take(&mut state.faults.failed_creates) {
            return Err(eio());
        }
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = Arc::<Mutex<Node>>::default();
        state.names.insert(path.to_path_buf(), node.clone());
        Ok(Arc::new(MemoryFile { memory: self.clone(), node }))
    }

    fn open(&self, path: &Path, _writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        let node = self.state().names.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { memory: self.clone(), node }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let length = |path: &Path| lock(&state.names[path]).content.len() as u64;
        Ok(state.in_dir(dir).iter().map(|path| (name(path), length(path))).collect())
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.operate() {
            return Err(eio());
        }
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), node);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.operate() {
            return Err(eio());
        }
        state.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.operate() {
            return Err(eio());
        }
        let is_inside = |path: &PathBuf| path.parent() == Some(dir);
        let inside: Names = state
            .names
            .iter()
            .filter(|(path, _)| is_inside(path))
            .map(|(path, node)| (path.clone(), node.clone()))
            .collect();
        state.durable_names.retain(|path, _| !is_inside(path));
        state.durable_names.extend(inside);
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let is_free = self.state().locks.insert(path.to_path_buf());
        Ok(is_free.then(|| Box::new(MemoryLock { memory: self.clone(), path: path.to_path_buf() }) as Lock))
    }
}
