//! What the chunks of a stream have in common.
//!
//! Most of them differ from the one before in nothing but a piece of text. Such a chunk is known without being read:
//! whatever else it says was said just before, and saying it again changes nothing.

use std::ops::Range;

use crate::gateway::json::Text;

/// The most bytes of a chunk that are remembered.
const MOST: usize = 1024;

/// A chunk that was read, and where its text stands in it.
#[derive(Debug, Default)]
pub(super) struct Frame {
    chunk: Vec<u8>,
    /// The string in the chunk, quotes included; empty while no chunk is remembered.
    text: Range<usize>,
    adds: Adds,
}

/// What the chunk that is being read adds to the answer, besides what a second one like it would not change.
#[derive(Debug, Default)]
enum Adds {
    #[default]
    Nothing,
    /// One piece of text, which stands here.
    Text(Range<usize>),
    /// Something else, or several pieces.
    More,
}

impl Frame {
    /// The text of a chunk that is the one remembered but for its text.
    pub(super) fn text_in<'b>(&self, chunk: &'b [u8]) -> Option<Text<'b>> {
        if self.text.is_empty() {
            return None;
        }
        let (before, behind) = (&self.chunk[..self.text.start], &self.chunk[self.text.end..]);
        let (text, rest) = Text::leading(chunk.strip_prefix(before)?)?;
        (rest == behind).then_some(text)
    }

    /// A chunk is going to be read; what was read before it is not the last word any more.
    pub(super) fn begin(&mut self) {
        (self.text, self.adds) = (0..0, Adds::Nothing);
    }

    /// It adds a piece of text, which stands here with its quotes.
    pub(super) fn adds_text(&mut self, start: usize, length: usize) {
        self.adds = match self.adds {
            Adds::Nothing => Adds::Text(start..start + length),
            Adds::Text(_) | Adds::More => Adds::More,
        };
    }

    /// It adds something that a second one would add again.
    pub(super) fn adds_more(&mut self) {
        self.adds = Adds::More;
    }

    /// The chunk was read and brings content: it is remembered if its text is all that it adds.
    pub(super) fn end(&mut self, chunk: &[u8]) {
        if let Adds::Text(text) = std::mem::take(&mut self.adds)
            && chunk.len() - text.len() <= MOST
        {
            self.chunk.clear();
            self.chunk.extend_from_slice(&chunk[..text.start]);
            let start = self.chunk.len();
            // The text itself is left out but for its quotes, so that long ones take no room.
            self.chunk.extend_from_slice(b"\"\"");
            self.chunk.extend_from_slice(&chunk[text.end..]);
            self.text = start..start + 2;
        }
    }
}
