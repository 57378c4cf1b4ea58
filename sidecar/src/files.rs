//! Notices that a file of the settings has changed: the configuration, the key ring, a contract.
//!
//! Looks every [`INTERVAL`], by length, time of change and identity of what a path leads to; that finds edits, renames
//! and the swapped symbolic links of a mounted ConfigMap alike, on every kind of file system. A change counts once two looks
//! have found the same, so that a file is not read while it is being written.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A person who changes a file waits for some seconds; a look costs some microseconds a file.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is looked at.
pub(crate) struct Files {
    places: Arc<Places>,
    /// As of the last change.
    seen: Vec<Look>,
    /// As of the last look.
    last: Option<Vec<Look>>,
}

struct Places {
    files: Vec<PathBuf>,
    dir: PathBuf,
}

/// A path and what it leads to; none where nothing is there.
type Look = (PathBuf, Option<(u64, i64, i64, u64)>);

impl Files {
    /// Looks at these files, and at all `*.yaml` in `dir`.
    pub(crate) fn new(files: Vec<PathBuf>, dir: &Path) -> Files {
        let places = Places { files, dir: dir.to_path_buf() };
        Files { seen: places.look(), places: Arc::new(places), last: None }
    }

    /// Resolves when something has changed since it resolved last. Dropping the future forgets nothing.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let places = self.places.clone();
            // A file system may keep who looks waiting.
            // It panics nowhere: where it does not come back, the runtime ends.
            if let Ok(look) = tokio::task::spawn_blocking(move || places.look()).await
                && self.take(look)
            {
                return;
            }
        }
    }

    /// Whether there is a change, and it is over.
    fn take(&mut self, look: Vec<Look>) -> bool {
        let is_over = self.last.replace(look.clone()).is_some_and(|last| last == look);
        let has_changed = is_over && look != self.seen;
        if has_changed {
            self.seen = look;
        }
        has_changed
    }
}

impl Places {
    fn look(&self) -> Vec<Look> {
        let contracts = std::fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let contracts = contracts.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        let mut looks: Vec<Look> = self.files.iter().cloned().chain(contracts).map(look_at).collect();
        looks.sort();
        looks
    }
}

fn look_at(path: PathBuf) -> Look {
    let found = std::fs::metadata(&path).ok();
    let found = found.map(|found| (found.len(), found.mtime(), found.mtime_nsec(), found.ino()));
    (path, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Files {
        /// Looks once.
        fn has_changed(&mut self) -> bool {
            self.take(self.places.look())
        }
    }

    #[test]
    fn edits_new_files_and_swapped_links_are_noticed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let setting = at("sidecar.toml");
        std::fs::write(&setting, "a").unwrap();
        std::fs::create_dir(at("v1")).unwrap();
        std::fs::create_dir(at("v2")).unwrap();
        std::fs::write(at("v1/m.yaml"), "a").unwrap();
        std::fs::write(at("v2/m.yaml"), "a").unwrap();
        std::os::unix::fs::symlink("v1", at("data")).unwrap();
        let mut files = Files::new(vec![setting.clone()], &at("data"));
        // Each change is looked at while it may go on, and then again.
        let is_noticed = |files: &mut Files| [(); 3].map(|()| files.has_changed()) == [false, true, false];
        assert!(!is_noticed(&mut files));
        std::fs::write(&setting, "ab").unwrap();
        assert!(is_noticed(&mut files));
        std::fs::remove_file(at("data")).unwrap();
        std::os::unix::fs::symlink("v2", at("data")).unwrap();
        assert!(is_noticed(&mut files));
        std::fs::write(at("v2/n.yaml"), "a").unwrap();
        assert!(is_noticed(&mut files));
        std::fs::write(at("v2/n.txt"), "a").unwrap();
        assert!(!is_noticed(&mut files), "no contract");
        std::fs::remove_file(&setting).unwrap();
        assert!(is_noticed(&mut files));
        std::fs::write(&setting, "a").unwrap();
        assert!(!files.has_changed());
        std::fs::write(&setting, "abc").unwrap();
        assert!(!files.has_changed(), "it is still being written");
        assert!(files.has_changed());
    }
}
