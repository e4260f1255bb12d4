//! The segments of a pack as the request path asks for them.

use std::sync::atomic::{AtomicU64, Ordering};

use serin_core::ids::SegmentName;
use serin_core::plan::Segment;
use serin_core::segment::{Attributes, Found, InvalidExpression, Segmenter};

/// The segments of the rollout in force, compiled once, with what is counted about them.
#[derive(Debug)]
pub struct Segments {
    segmenter: Segmenter,
    names: Vec<SegmentName>,
    unreadable: Vec<AtomicU64>,
}

impl Segments {
    /// Compiles the segments of a plan.
    ///
    /// # Errors
    /// [`InvalidExpression`] when one cannot be used; a manifest with such a one is not accepted.
    pub fn of(segments: &[Segment]) -> Result<Self, InvalidExpression> {
        let names: Vec<SegmentName> = segments.iter().map(|segment| segment.name.clone()).collect();
        let unreadable = names.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Self { segmenter: Segmenter::new(segments)?, names, unreadable })
    }

    /// Whether attributes can make a difference.
    pub fn read_attributes(&self) -> bool {
        self.segmenter.reads_attributes()
    }

    /// The index of the segment that a session belongs to; counts the segments that could not tell.
    pub fn find(&self, attributes: &Attributes) -> usize {
        let found = self.segmenter.find(attributes);
        for counter in found.unreadable().filter_map(|index| self.unreadable.get(index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        found.segment
    }

    /// The same for somebody who only asks: nothing is counted.
    pub fn peek(&self, attributes: &Attributes) -> Found {
        self.segmenter.find(attributes)
    }

    /// Requests for which a segment could not tell, because an attribute was missing or of another type.
    pub fn unreadable(&self) -> impl Iterator<Item = (&SegmentName, u64)> {
        let counts = self.unreadable.iter().map(|counter| counter.load(Ordering::Relaxed));
        self.names.iter().zip(counts)
    }
}
