//! Files that are replaced while a role runs: when the content of one is another.
//!
//! What counts is content, never a time stamp. Directories are watched rather than files, because a file is usually
//! replaced by renaming another over it, and a mounted ConfigMap by swapping a link beside it; a look every half minute
//! finds what no event told of. A file that cannot be read counts as one more content, so its going and its coming back
//! are both told.

use std::hash::{DefaultHasher, Hasher};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long no event is waited for before the files are looked at anyway.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long a burst of events may go on, so that files that belong together are read together.
const SETTLE: Duration = Duration::from_millis(100);

/// Looks at files. Needs a tokio runtime.
#[derive(Debug)]
pub struct WatchedFiles {
    files: Vec<(PathBuf, Content)>,
    /// None where the system gives no events: the looking goes on.
    events: Option<AsyncFd<OwnedFd>>,
    next_look: Instant,
}

/// A hash of what a file holds; none for a file that cannot be read.
type Content = Option<u64>;

impl WatchedFiles {
    /// Looks at these files from now on.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let files: Vec<_> = files.into_iter().map(|path| (path.clone(), content(&path))).collect();
        let events = events_beside(&files);
        Self { files, events, next_look: Instant::now() + LOOK_AGAIN }
    }

    /// Waits until some of the files hold something else than when they were last looked at, and says which. Cancel
    /// safe: what was not told is told the next time.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            tokio::select! {
                () = event(self.events.as_ref()) => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep_until(self.next_look) => {}
            }
            self.next_look = Instant::now() + LOOK_AGAIN;
            let changed = self.look();
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    /// Calls `read` each time that some of the files hold something else, and looks at once when `asked`; until `read`
    /// says that nobody needs them any more.
    pub async fn follow(mut self, asked: Arc<Notify>, mut read: impl FnMut() -> ControlFlow<()>) {
        loop {
            tokio::select! {
                _ = self.changed() => {}
                () = asked.notified() => if self.look().is_empty() { continue },
            }
            if read().is_break() {
                return;
            }
        }
    }

    /// Which files hold something else than when they were last looked at.
    pub fn look(&mut self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for (path, known) in &mut self.files {
            let now = content(path);
            if now != *known {
                *known = now;
                changed.push(path.clone());
            }
        }
        changed
    }
}

fn content(path: &Path) -> Content {
    let octets = std::fs::read(path).ok()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&octets);
    Some(hasher.finish())
}

/// Events of the directories that hold the files.
fn events_beside(files: &[(PathBuf, Content)]) -> Option<AsyncFd<OwnedFd>> {
    let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
    let of_interest = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE;
    for (path, _) in files {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A directory that is not there yet is found by looking.
        let _ = inotify::add_watch(&events, directory, of_interest);
    }
    #[expect(deprecated, reason = "`register` asks for what an owned descriptor promises anyway: to stay open")]
    AsyncFd::new(events).ok()
}

/// Waits for an event and forgets it with all that came with it.
async fn event(events: Option<&AsyncFd<OwnedFd>>) {
    let Some(events) = events else { return std::future::pending().await };
    let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(events.get_ref(), &mut buffer);
    while reader.next().is_ok() {}
    ready.clear_ready();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(path: &Path) -> WatchedFiles {
        WatchedFiles::new([path.to_owned()])
    }

    #[tokio::test]
    async fn a_file_that_is_written_over_or_renamed_over_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, "one").unwrap();
        let mut files = watched(&file);

        std::fs::write(&file, "two").unwrap();
        assert_eq!(files.changed().await, std::slice::from_ref(&file));

        let beside = folder.path().join("new");
        std::fs::write(&beside, "three").unwrap();
        std::fs::rename(&beside, &file).unwrap();
        assert_eq!(files.changed().await, std::slice::from_ref(&file));
    }

    #[tokio::test]
    async fn a_file_behind_a_link_that_is_swapped_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("v1", "one"), ("v2", "two")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("key.pem"), text).unwrap();
        }
        std::os::unix::fs::symlink("v1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/key.pem", at("key.pem")).unwrap();
        let mut files = watched(&at("key.pem"));

        std::os::unix::fs::symlink("v2", at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();

        assert_eq!(files.changed().await, [at("key.pem")]);
    }

    #[tokio::test]
    async fn the_same_content_written_again_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, "one").unwrap();
        let mut files = watched(&file);

        std::fs::write(&file, "one").unwrap();

        assert!(files.look().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_a_look_has_what_changed_read_at_once_and_what_did_not_change_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("later").join("key.pem");
        let (asked, (told, mut reads)) = (Arc::new(Notify::new()), tokio::sync::mpsc::unbounded_channel());
        let followed = watched(&file).follow(Arc::clone(&asked), move || match told.send(Instant::now()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        let (following, before) = (tokio::spawn(followed), Instant::now());

        asked.notify_one();
        tokio::task::yield_now().await;
        std::fs::create_dir(folder.path().join("later")).unwrap();
        std::fs::write(&file, "one").unwrap();
        asked.notify_one();

        assert_eq!(reads.recv().await, Some(before));
        drop(reads);
        std::fs::write(&file, "two").unwrap();
        asked.notify_one();
        following.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_event_tells_of_is_found_within_half_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("later").join("key.pem");
        let mut files = watched(&file);
        std::fs::create_dir(folder.path().join("later")).unwrap();
        std::fs::write(&file, "one").unwrap();
        let before = Instant::now();

        assert_eq!(files.changed().await, [file]);

        assert_eq!(before.elapsed(), LOOK_AGAIN);
    }

    #[test]
    fn a_file_that_goes_and_comes_back_is_told_twice() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, "one").unwrap();
        let mut files = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { watched(&file) });

        std::fs::remove_file(&file).unwrap();
        assert_eq!(files.look(), std::slice::from_ref(&file));
        std::fs::write(&file, "one").unwrap();
        assert_eq!(files.look(), [file]);
    }
}
