//! The thread that waits for `fdatasync`, so that the writer need not: what comes meanwhile is written, and who waits for
//! no more than `write(2)` does not wait for the disk.
//!
//! One sync is under way at a time. Its result is the writer's to take.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};

use crate::shared::Shared;
use crate::storage::StorageFile;
use crate::watermark::lock;

const THREAD_NAME: &str = "spool-syncer";

#[derive(Debug)]
pub(super) struct Syncer {
    /// None once the thread is to end.
    files: Option<SyncSender<Arc<dyn StorageFile>>>,
    results: Receiver<io::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Syncer> {
        let (files, work) = sync_channel::<Arc<dyn StorageFile>>(1);
        let (done, results) = sync_channel(1);
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
            for file in work {
                let result = file.sync();
                drop(file);
                if done.send(result).is_err() {
                    return;
                }
                // An idle writer is to take it.
                lock(&shared.queue).sync_over = true;
                shared.work.notify_one();
            }
        })?;
        Ok(Syncer { files: Some(files), results, thread: Some(thread) })
    }

    /// Begins a sync; none is under way.
    pub(super) fn begin(&self, file: Arc<dyn StorageFile>) {
        // Where the thread is gone, the result says so.
        let _ = self.files.as_ref().map(|files| files.send(file));
    }

    /// The result of the sync under way; none while it goes on.
    pub(super) fn try_end(&self) -> Option<io::Result<()>> {
        match self.results.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(gone())),
        }
    }

    /// Waits for the result of the sync under way.
    pub(super) fn end(&self) -> io::Result<()> {
        self.results.recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that syncs has ended")
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.files = None;
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; and a spool that ends is no worse for it.
            let _ = thread.join();
        }
    }
}
