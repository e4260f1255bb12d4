//! Names and identities, parsed once and trusted afterwards.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::audit::{Origin, Source};

/// Why a name, version or key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} {problem}")]
pub struct InvalidId {
    /// What was being read, such as `pack name`.
    pub what: &'static str,
    /// The text as given, shortened when long.
    pub given: String,
    /// What is wrong with it, and what would be right.
    pub problem: &'static str,
}

impl InvalidId {
    fn new(what: &'static str, given: &str, problem: &'static str) -> Self {
        let given = given.chars().take(80).collect();
        Self { what, given, problem }
    }
}

/// Declares a text newtype with a private field, a fallible `parse`, and serde by way of it.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// [`InvalidId`] tells what is wrong with it.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(problem) => Err(InvalidId::new($what, text, problem)),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }
    };
}

/// Whether `text` is what PromptPack allows as an id: `^[a-z][a-z0-9-]*$`.
fn is_pack_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

text_id! {
    /// The name of a pack: `^[a-z][a-z0-9-]*$`, at most 63 characters.
    PackName, "pack name", |text| {
        if text.len() > 63 {
            Err("is longer than 63 characters")
        } else if is_pack_id(text) {
            Ok(())
        } else {
            Err("must start with a lower-case letter and hold only a-z, 0-9 and '-'")
        }
    }
}

text_id! {
    /// The name of one prompt inside a pack: letters, digits, `_`, `-`; at most 63 characters.
    PromptName, "prompt name", |text| {
        let fits = !text.is_empty() && text.len() <= 63;
        if fits && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            Ok(())
        } else {
            Err("must hold 1 to 63 letters, digits, '-' or '_'")
        }
    }
}

text_id! {
    /// The name of an LLM provider in the settings: `^[a-z][a-z0-9-]*$`, at most 63 characters.
    ProviderName, "provider name", |text| {
        if text.len() <= 63 && is_pack_id(text) {
            Ok(())
        } else {
            Err("must start with a lower-case letter and hold only a-z, 0-9 and '-', 63 at most")
        }
    }
}

text_id! {
    /// The name of a segment: letters, digits, `_`, `-`; at most 63 characters.
    SegmentName, "segment name", |text| {
        let fits = !text.is_empty() && text.len() <= 63;
        if fits && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            Ok(())
        } else {
            Err("must hold 1 to 63 letters, digits, '-' or '_'")
        }
    }
}

text_id! {
    /// The identity of a rollout, such as `support-prompts-r3`: the third attempt on that pack.
    RolloutId, "rollout id", |text| {
        if !text.is_empty() && text.len() <= 80 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            Ok(())
        } else {
            Err("must hold 1 to 80 letters, digits or '-'")
        }
    }
}

/// Behind the id of a rollout whose version is watched.
const WATCH: &str = "-watch";

impl RolloutId {
    /// The id of the `attempt`-th rollout of a pack, counted from 1.
    pub fn of(pack: &PackName, attempt: u64) -> Self {
        Self(format!("{pack}-r{attempt}"))
    }

    /// What sessions of the watch over its completed version are stamped with.
    ///
    /// No rollout has such an id: it does not end with a number.
    #[must_use]
    pub fn watch(&self) -> Self {
        Self(format!("{}{WATCH}", self.0))
    }

    /// Whether it names the watch over a version, and no rollout.
    pub fn is_watch(&self) -> bool {
        self.0.ends_with(WATCH)
    }

    /// The pack whose rollout has this id; nothing where no pack can have it.
    pub fn pack(&self) -> Option<PackName> {
        let (pack, attempt) = self.0.rsplit_once("-r")?;
        let is_number = !attempt.is_empty() && attempt.bytes().all(|byte| byte.is_ascii_digit());
        PackName::parse(pack).ok().filter(|_| is_number)
    }
}

text_id! {
    /// What an app calls one conversation or user: 1 to 256 bytes without control characters.
    SessionKey, "session key", |text| {
        if text.is_empty() || text.len() > 256 {
            Err("must hold 1 to 256 bytes")
        } else if text.chars().any(char::is_control) {
            Err("must not hold control characters")
        } else {
            Ok(())
        }
    }
}

/// A semantic version of a pack, such as `2.4.0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(semver::Version);

impl Version {
    /// Parses a version by the rules of Semantic Versioning 2.0.
    ///
    /// # Errors
    /// [`InvalidId`] when the text is no semantic version.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        semver::Version::parse(text)
            .map(Self)
            .map_err(|_| InvalidId::new("version", text, "is no semantic version such as 2.4.0"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

/// 128 bits that stand for a session key of one pack wherever the key itself is too long to carry.
///
/// XXH3-128 of `pack ‖ 0x00 ‖ key`: with ten million sessions the chance that any two meet is below 10^-24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionHash(pub u128);

impl SessionHash {
    /// Hashes a session key of a pack.
    pub fn of(pack: &PackName, key: &SessionKey) -> Self {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(pack.as_str().as_bytes());
        hasher.update(&[0]);
        hasher.update(key.as_str().as_bytes());
        Self(hasher.digest128() << 32 >> 32 | u128::from(PackTag::of(pack).0) << 96)
    }

    /// The tag of the pack that the session belongs to.
    pub fn tag(self) -> PackTag {
        PackTag((self.0 >> 96) as u32)
    }
}

/// The upper 32 bits of the hashes of a pack's sessions: what tells them apart where nothing but hashes is held.
///
/// Two packs may share one, if only one in four billion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackTag(u32);

impl PackTag {
    /// The tag of a pack.
    #[expect(clippy::cast_possible_truncation, reason = "half of the hash is enough")]
    pub fn of(pack: &PackName) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(pack.as_str().as_bytes()) as u32)
    }
}

/// What stands between the name of a key and the one for whom it was shown.
const FOR: &str = " (for ";

/// Who causes something: a person, a pipeline, or Serin itself.
///
/// An actor who has just come also knows by which way; where actors are kept, only the name is. Two actors are the
/// same when their names are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Actor {
    name: String,
    origin: Option<Arc<Origin>>,
}

impl Actor {
    /// The actor of every automatic decision.
    pub fn serin() -> Self {
        Self { name: "serin".to_owned(), origin: None }
    }

    /// A named person or pipeline; control characters are dropped and the name is cut at 120 characters.
    pub fn named(name: &str) -> Self {
        let name: String = name.chars().filter(|c| !c.is_control()).take(120).collect();
        let name = if name.trim().is_empty() { "unknown".to_owned() } else { name };
        Self { name, origin: None }
    }

    /// Whoever shows a key, and for whom they say they come: `ci (for ana)`.
    pub fn for_somebody(key: &str, given: &str) -> Self {
        Self::named(&format!("{key}{FOR}{given})"))
    }

    /// Every name that they go by: that of the key, and the one that they say they come for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let (first, rest) = match self.name.split_once(FOR) {
            Some((key, given)) => (key, Some(given.strip_suffix(')').unwrap_or(given))),
            None => (self.name.as_str(), None),
        };
        std::iter::once(first).chain(rest)
    }

    /// The same actor, who came by a way.
    #[must_use]
    pub fn by(self, origin: Origin) -> Self {
        Self { origin: Some(Arc::new(origin)), ..self }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// By which way they came; an actor who was read from the data directory came by that.
    pub fn origin(&self) -> Origin {
        match &self.origin {
            Some(origin) => Origin::clone(origin),
            None if *self == Self::serin() => Origin::without_key(Source::Serin),
            None => Origin::without_key(Source::DataDirectory),
        }
    }
}

impl PartialEq for Actor {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Actor {}

impl From<String> for Actor {
    fn from(name: String) -> Self {
        Self { name, origin: None }
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.name
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_their_reason() {
        let refused = PackName::parse("Support").unwrap_err().to_string();
        assert_eq!(
            refused,
            "pack name \"Support\" must start with a lower-case letter and hold only a-z, 0-9 and '-'"
        );
        assert!(PackName::parse(&"a".repeat(64)).is_err());
        assert!(Version::parse("2.4").is_err());
        assert!(SessionKey::parse("a\nb").is_err());
        assert!(SessionKey::parse("").is_err());
    }

    #[test]
    fn the_id_of_a_rollout_names_its_pack() {
        let pack = PackName::parse("a-r2-b").unwrap();
        assert_eq!(RolloutId::of(&pack, 17).pack(), Some(pack));
        for none in ["support", "support-r", "support-rx", "-r1", "Support-r1"] {
            assert_eq!(RolloutId::parse(none).unwrap().pack(), None, "{none}");
        }
    }

    #[test]
    fn session_hash_is_frozen() {
        let pack = PackName::parse("support-prompts").unwrap();
        let key = SessionKey::parse("user-1").unwrap();
        let other = PackName::parse("support").unwrap();
        assert_ne!(SessionHash::of(&pack, &key), SessionHash::of(&other, &key));
        assert_eq!(
            SessionHash::of(&pack, &key).0 << 32,
            xxhash_rust::xxh3::xxh3_128(b"support-prompts\0user-1") << 32
        );
        assert_eq!(SessionHash::of(&pack, &key).tag(), PackTag::of(&pack));
        assert_ne!(PackTag::of(&pack), PackTag::of(&other));
    }
}
