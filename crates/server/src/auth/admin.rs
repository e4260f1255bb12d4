//! The first key: made when a server starts without anybody who could make keys.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serin_core::access::Grant;
use serin_core::ids::Actor;

use super::keys::{KeyError, KeyRing, NewKey};
use super::secret::{NEW_KEY_BYTES, hash_of, new_key};

/// The file in the data directory that the first key is written to, readable for its owner only.
pub const ADMIN_KEY_FILE: &str = "admin.key";

/// Why the first key was not made.
#[derive(Debug, thiserror::Error)]
pub enum FirstKeyError {
    /// The file cannot be written.
    #[error("could not write the first key to {}: {source}\nhint: the data directory must be writable for this user", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key cannot be stored.
    #[error("could not store the first key")]
    Key(#[from] KeyError),
}

/// Makes a key for an admin unless somebody has one; where it was written.
///
/// The file is durable before the store knows of the key, so that a key which nobody has cannot come about.
///
/// # Errors
/// [`FirstKeyError`] when the file or the store cannot be written.
pub async fn first_key(
    keys: &KeyRing,
    data_dir: &Path,
    random: [u8; NEW_KEY_BYTES],
    now: Timestamp,
) -> Result<Option<PathBuf>, FirstKeyError> {
    if keys.has_admin(now) {
        return Ok(None);
    }
    let key = new_key(random);
    let path = data_dir.join(ADMIN_KEY_FILE);
    write(&path, &key).map_err(|source| FirstKeyError::File { path: path.clone(), source })?;
    // A name is taken for as long as its key is, even when it has expired.
    let is_free = |name: &String| keys.list().iter().all(|key| key.name != *name);
    let mut names = (1..).map(|n| if n == 1 { "admin".to_owned() } else { format!("admin-{n}") });
    let name = names.find(is_free).unwrap_or_default();
    let new = NewKey::new(&name, Grant::ADMIN, None, now).expect("admin and a number are a name");
    keys.add(new, &Actor::serin(), hash_of(&key), now).await?;
    Ok(Some(path))
}

/// Puts the key into the file's place in one step.
fn write(path: &Path, key: &str) -> std::io::Result<()> {
    let next = path.with_extension("key.next");
    // What an earlier attempt left behind could be readable for others.
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&next)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    std::fs::rename(&next, path)
}
