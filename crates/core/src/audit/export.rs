//! The audit log as a file that can be checked without the server that wrote it.
//!
//! One JSON object a line: a head that says what comes before the first entry, the entries with everything that their
//! hashes cover, and an end that says which entry was the last. Each line has exactly one way to be written, so
//! that any changed byte is found.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{AuditEntry, BrokenChain, Chain, ChainHash, Noted};
use crate::units::Timestamp;

/// What the first line says that the file is.
pub const EXPORT_FORMAT: &str = "serin-audit/2";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    after: u64,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    seq: u64,
    at: Timestamp,
    pack: String,
    rollout: Option<String>,
    revision: u64,
    actor: String,
    source: Option<String>,
    key: Option<String>,
    action: String,
    reason: String,
    evidence: Box<RawValue>,
    prev: String,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    end: u64,
    hash: String,
}

/// The first line of an export that goes on behind an entry; [`Noted::GENESIS`] for all of the log.
pub fn export_head(after: Noted) -> String {
    line_of(&Head { format: EXPORT_FORMAT.to_owned(), after: after.seq, hash: after.hash.to_string() })
}

/// The line of an entry.
///
/// # Errors
/// [`BrokenChain::Changed`] when it holds what was never written: a time that is none, evidence that is no JSON.
pub fn export_line(entry: &AuditEntry) -> Result<String, BrokenChain> {
    let changed = BrokenChain::Changed(entry.seq);
    let (Ok(at), Ok(evidence)) =
        (Timestamp::from_microsecond(entry.at_us), RawValue::from_string(entry.evidence.clone()))
    else {
        return Err(changed);
    };
    let line = line_of(&Line {
        seq: entry.seq,
        at,
        pack: entry.pack.clone(),
        rollout: entry.rollout.clone(),
        revision: entry.revision,
        actor: entry.actor.clone(),
        source: entry.source.clone(),
        key: entry.key.clone(),
        action: entry.action.clone(),
        reason: entry.reason.clone(),
        evidence,
        prev: entry.prev.to_string(),
        hash: entry.hash.to_string(),
    });
    // A line break inside evidence would make two lines of one.
    if line.matches('\n').count() == 1 { Ok(line) } else { Err(changed) }
}

/// The last line: the last entry before it.
pub fn export_end(last: Noted) -> String {
    line_of(&End { end: last.seq, hash: last.hash.to_string() })
}

fn line_of(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("text, numbers and a time are JSON") + "\n"
}

/// What an export holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// What comes before its first entry.
    pub after: Noted,
    /// Its last entry.
    pub last: Noted,
}

impl Exported {
    /// How many entries it holds.
    pub fn entries(&self) -> u64 {
        self.last.seq - self.after.seq
    }
}

/// What is wrong with an export; lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportProblem {
    /// It is none.
    #[error("line 1 is not the head of an export of the audit log ({EXPORT_FORMAT})")]
    NotAnExport,
    /// A line is not as it was written.
    #[error("line {line} was changed after it was written (behind audit entry {behind}): {why}")]
    Line {
        /// The line.
        line: u64,
        /// The last entry that was right.
        behind: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The chain is broken.
    #[error("line {line}: {broken}")]
    Chain {
        /// The line.
        line: u64,
        /// How.
        broken: BrokenChain,
    },
    /// The end is missing.
    #[error("the file is cut off behind audit entry {0}: its last line does not say that it is the end")]
    CutOff(u64),
    /// Something comes after the end.
    #[error("line {0} comes after the end")]
    AfterTheEnd(u64),
}

/// Checks an export line by line, in constant memory.
#[derive(Debug)]
pub struct Verifier {
    noted: Option<Noted>,
    /// What comes before the first entry, and the chain since then; nothing before the first line.
    begun: Option<(Noted, Chain)>,
    lines: u64,
    is_over: bool,
}

impl Verifier {
    /// A verifier that also expects an entry that was noted elsewhere.
    pub fn new(noted: Option<Noted>) -> Self {
        Self { noted, begun: None, lines: 0, is_over: false }
    }

    /// Takes the next line, with the line feed that ends it.
    ///
    /// # Errors
    /// [`ExportProblem`] names the line and the entry.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), ExportProblem> {
        self.lines += 1;
        let line = self.lines;
        let Some((_, chain)) = &mut self.begun else {
            let head: Head = serde_json::from_slice(bytes).map_err(|_| ExportProblem::NotAnExport)?;
            let hash = ChainHash::parse(&head.hash).ok_or(ExportProblem::NotAnExport)?;
            let after = Noted { seq: head.after, hash };
            if export_head(after).as_bytes() != bytes || (after.seq == 0 && after != Noted::GENESIS) {
                return Err(ExportProblem::NotAnExport);
            }
            let chain =
                Chain::new(after, self.noted).map_err(|broken| ExportProblem::Chain { line, broken })?;
            self.begun = Some((after, chain));
            return Ok(());
        };
        if self.is_over {
            return Err(ExportProblem::AfterTheEnd(line));
        }
        let behind = chain.last().seq;
        if !bytes.ends_with(b"\n") {
            return Err(ExportProblem::CutOff(behind));
        }
        let wrong = |why: String| ExportProblem::Line { line, behind, why };
        let broken = |broken| ExportProblem::Chain { line, broken };
        if bytes.starts_with(b"{\"end\"") {
            let end: End = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
            let hash = ChainHash::parse(&end.hash).ok_or_else(|| wrong("its hash is none".to_owned()))?;
            let last = Noted { seq: end.end, hash };
            chain.end(last).map_err(broken)?;
            self.is_over = true;
            let is_as_written = export_end(last).as_bytes() == bytes;
            return if is_as_written { Ok(()) } else { Err(wrong(NOT_AS_WRITTEN.to_owned())) };
        }
        let read: Line = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        let entry = entry(read).ok_or_else(|| wrong("one of its hashes is none".to_owned()))?;
        chain.follow(&entry).map_err(broken)?;
        let is_as_written = export_line(&entry).is_ok_and(|line| line.as_bytes() == bytes);
        if is_as_written { Ok(()) } else { Err(wrong(NOT_AS_WRITTEN.to_owned())) }
    }

    /// Says what the export holds, after its last line.
    ///
    /// # Errors
    /// [`ExportProblem`] when there was no head or no end.
    pub fn finish(self) -> Result<Exported, ExportProblem> {
        let (after, chain) = self.begun.ok_or(ExportProblem::NotAnExport)?;
        let last = chain.last();
        if self.is_over { Ok(Exported { after, last }) } else { Err(ExportProblem::CutOff(last.seq)) }
    }
}

const NOT_AS_WRITTEN: &str = "it says the same in other bytes";

fn entry(line: Line) -> Option<AuditEntry> {
    Some(AuditEntry {
        seq: line.seq,
        at_us: line.at.as_microsecond(),
        pack: line.pack,
        rollout: line.rollout,
        revision: line.revision,
        actor: line.actor,
        source: line.source,
        key: line.key,
        action: line.action,
        reason: line.reason,
        evidence: line.evidence.get().to_owned(),
        prev: ChainHash::parse(&line.prev)?,
        hash: ChainHash::parse(&line.hash)?,
    })
}
