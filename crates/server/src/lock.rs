//! The lock of the data directory, which also tells how the server before ended.
//!
//! The file says `running` for as long as a server runs. Who finds that comes after a crash: the pins of the last
//! moments may not have reached the store. When the server came back from one stands there too, for a stop in order
//! brings back no pin.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use serin_core::units::Timestamp;

use crate::server::StartError;

/// The file in the data directory that one process at a time holds locked.
const LOCK: &str = "serin.lock";
/// Its first line while a server runs, and after one that was killed.
const RUNNING: &str = "running";
/// Its first line after a server that ended in order.
const ENDED: &str = "ended";
/// What its second line begins with, behind which stands when a server came back from a crash.
const BACK_SINCE: &str = "back since ";

/// The lock of a data directory, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    /// Whether the server before was killed, or its machine went down.
    was_running: bool,
    back_since: Option<Timestamp>,
}

impl Lock {
    /// Makes the data directory and takes its lock.
    ///
    /// # Errors
    /// [`StartError`] when the directory cannot be used, or another process uses it.
    pub(crate) fn take(data_dir: &Path) -> Result<Self, StartError> {
        let unusable = |source| StartError::DataDir { path: data_dir.to_owned(), source };
        std::fs::create_dir_all(data_dir).map_err(unusable)?;
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(data_dir.join(LOCK))
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StartError::Locked { path: data_dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let mut said = Vec::new();
        file.read_to_end(&mut said).map_err(unusable)?;
        let said = String::from_utf8_lossy(&said);
        let was_running = said.lines().next() == Some(RUNNING);
        let back_since = said.lines().find_map(|line| line.strip_prefix(BACK_SINCE)?.parse().ok());
        Ok(Self { file, was_running, back_since })
    }

    /// Notes durably that a server runs from now on, and tells when one came back from the latest crash, if there was
    /// any.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn note_running(&mut self, now: Timestamp) -> std::io::Result<Option<Timestamp>> {
        if self.was_running {
            self.back_since = Some(now);
        }
        self.say(RUNNING)?;
        Ok(self.back_since)
    }

    /// Notes that a server has ended and lost nothing.
    ///
    /// # Errors
    /// When the file cannot be written; the next server takes it for a crash.
    pub(crate) fn note_ended(mut self) -> std::io::Result<()> {
        self.say(ENDED)
    }

    fn say(&mut self, state: &str) -> std::io::Result<()> {
        let since = self.back_since.map(|at| format!("{BACK_SINCE}{at}\n")).unwrap_or_default();
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(format!("{state}\n{since}").as_bytes())?;
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_did_not_end_in_order_leaves_a_crash_and_a_stop_in_order_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let take = || Lock::take(&directory.path().join("data")).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut first = take();
        assert!(matches!(Lock::take(&directory.path().join("data")), Err(StartError::Locked { .. })));
        drop(first);
        first = take();
        assert_eq!(first.note_running(at(1)).unwrap(), None, "a start that failed was no crash");
        first.note_ended().unwrap();
        let mut second = take();
        assert_eq!(second.note_running(at(2)).unwrap(), None);
        drop(second);
        let mut third = take();
        assert_eq!(third.note_running(at(3)).unwrap(), Some(at(3)));
        third.note_ended().unwrap();
        let mut fourth = take();
        assert_eq!(fourth.note_running(at(4)).unwrap(), Some(at(3)));
        drop(fourth);
        assert_eq!(take().note_running(at(5)).unwrap(), Some(at(5)));
    }
}
