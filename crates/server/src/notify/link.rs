//! Links to one action: signed, expiring, and good for one use.
//!
//! A link carries what it permits: to roll back one rollout, on behalf of whoever was sent it, until a point
//! in time. The signature is the permission; nothing about a link is stored before it is used.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serin_core::ids::RolloutId;
use serin_core::units::HoldFor;

/// The file in the data directory with the key that signs links.
pub const FILE: &str = "link.key";
/// Where links lead to on the control plane.
pub const PATH: &str = "/link";
/// Set before what is signed, so that no signature of this key means anything else.
const PURPOSE: &str = "serin link v1\n";
/// The longest token that is looked at, in bytes.
const LONGEST: usize = 2_048;

/// Why links cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("could not use the key of signed links {}: {problem}\nhint: remove the file to make a new key; links that were sent stop working", path.display())]
pub struct LinkKeyError {
    /// The file.
    path: PathBuf,
    /// What is wrong.
    problem: String,
}

/// Signs links and reads them back.
#[derive(Debug)]
pub struct Links {
    key: hmac::Key,
    /// The control plane as receivers reach it, without a final `/`; without it no links are made.
    base: Option<String>,
    lifetime: HoldFor,
}

/// What a link permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The one rollout that may be rolled back.
    pub rollout: RolloutId,
    /// Who was sent it, such as `slack:oncall`.
    pub to: String,
    /// The event that it was sent with.
    pub event: String,
    /// It works until then.
    pub until: Timestamp,
}

/// Why a link permits nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadLink {
    /// It was not made here, or changed on the way.
    NotOurs,
    /// Its time is over.
    Expired(Grant),
}

impl Links {
    /// Reads the key in the data directory, and makes one where there is none.
    ///
    /// # Errors
    /// [`LinkKeyError`] when the key cannot be read or written, or is none.
    pub fn open(data_dir: &Path, base: Option<&str>, lifetime: HoldFor) -> Result<Self, LinkKeyError> {
        let path = data_dir.join(FILE);
        let wrong = |problem: String| LinkKeyError { path: path.clone(), problem };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                make(&path).map_err(|error| wrong(error.to_string()))?
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).ok().filter(|bytes| bytes.len() == 32);
        let bytes = bytes.ok_or_else(|| wrong("it is no key of 32 bytes".to_owned()))?;
        let base = base.map(|base| base.trim_end_matches('/').to_owned());
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), base, lifetime })
    }

    /// A link that rolls back a rollout; nothing as long as the settings do not say where receivers reach us.
    pub fn rollback(&self, rollout: &RolloutId, to: &str, event: &str, now: Timestamp) -> Option<String> {
        let base = self.base.as_ref()?;
        let (to, event) = (to.to_owned(), event.to_owned());
        let grant = Grant { rollout: rollout.clone(), to, event, until: self.lifetime.after(now) };
        Some(format!("{base}{PATH}/{}", self.token(&grant)))
    }

    fn token(&self, grant: &Grant) -> String {
        let json = serde_json::to_vec(grant).expect("names and a point in time are JSON");
        let payload = URL_SAFE_NO_PAD.encode(json);
        let tag = hmac::sign(&self.key, format!("{PURPOSE}{payload}").as_bytes());
        format!("{payload}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// What a link permits now.
    ///
    /// # Errors
    /// [`BadLink`] when it permits nothing.
    pub fn read(&self, token: &str, now: Timestamp) -> Result<Grant, BadLink> {
        if token.len() > LONGEST {
            return Err(BadLink::NotOurs);
        }
        let (payload, tag) = token.split_once('.').ok_or(BadLink::NotOurs)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| BadLink::NotOurs)?;
        // Compared in constant time.
        hmac::verify(&self.key, format!("{PURPOSE}{payload}").as_bytes(), &tag)
            .map_err(|_| BadLink::NotOurs)?;
        let json = URL_SAFE_NO_PAD.decode(payload).map_err(|_| BadLink::NotOurs)?;
        let grant: Grant = serde_json::from_slice(&json).map_err(|_| BadLink::NotOurs)?;
        if now < grant.until { Ok(grant) } else { Err(BadLink::Expired(grant)) }
    }

    /// The identity of a link, by which its use is remembered.
    pub fn id(token: &str) -> String {
        blake3::hash(token.as_bytes()).to_hex().to_string()
    }
}

/// Makes a key that only this user can read.
fn make(path: &Path) -> std::io::Result<String> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; 32];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| std::io::Error::other("this machine gives no random bytes"))?;
    let text = URL_SAFE_NO_PAD.encode(bytes);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(dir: &Path) -> Links {
        Links::open(dir, Some("https://serin.example/"), HoldFor::from_hours(24)).unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-02T09:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_link_permits_what_it_says_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let rollout = RolloutId::parse("support-r3").unwrap();
        let link = links(dir.path()).rollback(&rollout, "slack:oncall", "7-ab", now()).unwrap();
        let token = link.strip_prefix("https://serin.example/link/").unwrap();
        // A restart reads the same key.
        let links = links(dir.path());
        let grant = links.read(token, now()).unwrap();
        assert_eq!((grant.rollout, grant.to.as_str()), (rollout, "slack:oncall"));
        let last = HoldFor::from_millis(24 * 3_600_000 - 1).after(now());
        assert!(links.read(token, last).is_ok());
        assert!(matches!(links.read(token, HoldFor::from_hours(24).after(now())), Err(BadLink::Expired(_))));
    }

    #[test]
    fn a_change_of_any_character_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let links = links(dir.path());
        let link = links.rollback(&RolloutId::parse("a-r1").unwrap(), "x:y", "1-a", now()).unwrap();
        let token = link.rsplit('/').next().unwrap();
        for at in 0..token.len() {
            let mut changed = token.to_owned();
            let other = if &token[at..=at] == "A" { "B" } else { "A" };
            changed.replace_range(at..=at, other);
            assert_eq!(links.read(&changed, now()), Err(BadLink::NotOurs), "{at}");
        }
        for wrong in ["", ".", "a.b", &"a".repeat(3_000)] {
            assert_eq!(links.read(wrong, now()), Err(BadLink::NotOurs), "{wrong}");
        }
        let other = tempfile::tempdir().unwrap();
        assert_eq!(self::links(other.path()).read(token, now()), Err(BadLink::NotOurs), "another key");
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_for_this_user_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        links(dir.path());
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(dir.path().join(FILE), "short").unwrap();
        assert!(Links::open(dir.path(), None, HoldFor::from_hours(1)).is_err());
    }
}
