//! Where the command line gets its key from when nobody names one: the data directory of a server on this machine.

use std::path::{Path, PathBuf};

use serin_server::auth::ADMIN_KEY_FILE;

/// The data directory of `serin serve` unless somebody says otherwise.
const DATA_DIR: &str = "serin-data";
/// The variable that says otherwise.
const DATA_DIR_VARIABLE: &str = "SERIN_DATA_DIR";

/// The key that goes along with each request.
#[derive(Clone)]
pub(crate) enum Key {
    /// Somebody named it.
    Given(String),
    /// It was found in a file.
    Found {
        /// The key.
        key: String,
        /// The file.
        path: PathBuf,
    },
    /// The file where it would be, and why it cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// None: the server is elsewhere, and nobody named one.
    None,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Given(_) => "Given(…)",
            Self::Found { .. } => "Found(…)",
            Self::Unreadable { .. } => "Unreadable",
            Self::None => "None",
        })
    }
}

/// Looks into the data directory that the variable names, or else into the one below this folder.
pub(crate) fn find() -> Key {
    let dir = std::env::var_os(DATA_DIR_VARIABLE).filter(|dir| !dir.is_empty());
    read(&dir.map_or_else(|| PathBuf::from(DATA_DIR), PathBuf::from))
}

fn read(data_dir: &Path) -> Key {
    let path = data_dir.join(ADMIN_KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Key::Found { key: text.trim().to_owned(), path },
        Ok(_) => Key::Unreadable { path, why: "it is empty".to_owned() },
        Err(error) => Key::Unreadable { path, why: error.to_string() },
    }
}

impl Key {
    /// The key, if there is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Given(key) | Self::Found { key, .. } => Some(key),
            Self::Unreadable { .. } | Self::None => None,
        }
    }

    /// What to do when the server does not know it.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Given(_) => {
                "check the key in --key or SERIN_KEY; an admin lists all with `serin key list`".to_owned()
            }
            Self::Found { path, .. } => format!(
                "the key came from {}, which is that of another server; name the right one with --key or SERIN_KEY, or its data directory with {DATA_DIR_VARIABLE}",
                path.display()
            ),
            Self::Unreadable { path, why } => format!(
                "name a key with --key or SERIN_KEY, or the server's data directory with {DATA_DIR_VARIABLE} (looked for {}: {why})",
                path.display()
            ),
            Self::None => {
                "name a key with --key or SERIN_KEY; an admin makes one with `serin key create`".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_the_data_directory_and_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Key::Unreadable { .. }));
        std::fs::write(dir.path().join(ADMIN_KEY_FILE), "serin_abc\n").unwrap();
        let key = read(dir.path());
        assert_eq!(key.text(), Some("serin_abc"));
        assert!(!format!("{key:?} {}", key.hint()).contains("serin_abc"));
    }
}
