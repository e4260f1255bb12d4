//! The pins of all live sessions, in memory.
//!
//! A request reads, touches and makes pins without a lock: all that moves are atomic words. Pins lie
//! in one `Table` that starts small; once four fifths of its slots are used, a successor of
//! 15/8 slots per live pin takes over, and every insert and [`PinTable::maintain`] moves a part of
//! the pins across. Slots of pins that ended are given up with the old table.
//!
//! Both tables exist during such a move, and one rule keeps them from contradicting each other:
//! **whoever wants a pin carries it across first** (`Table::carry`) and then works on the
//! successor alone. Carrying freezes what the old table says about the session, also that it says
//! nothing, so whoever still works there fails and comes back.

mod table;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use serin_core::ids::SessionHash;
use serin_core::routing::{Pin, seconds};

use self::table::{Frozen, Key, Occupied, Room, SEGMENT, Step, Table, capacity_for};

/// Slots that one insert moves across while a move is going on: a few microseconds of work.
const SHARE: usize = 64;

/// The pins of all live sessions.
///
/// **Invariants:** a session has at most one pin; a pin goes only by [`PinTable::remove_expired`],
/// or by an insert that names it; there are never more pins than the limit.
pub struct PinTable {
    current: ArcSwap<Table>,
    population: Population,
}

/// What became of a new pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    /// It is in the table.
    Inserted,
    /// The session has another pin, which stays.
    Existing(Pin),
    /// It would be one more than the table may hold.
    Full,
}

impl PinTable {
    /// An empty table that holds at most `max_pins` pins, of about 60 bytes each.
    pub fn with_capacity_limit(max_pins: usize) -> Self {
        Self {
            current: ArcSwap::from_pointee(Table::with_capacity(capacity_for(0))),
            population: Population { live: AtomicUsize::new(0), max: max_pins },
        }
    }

    /// The pin of a session.
    ///
    /// Only for a pin of this very session that is being written at this moment it waits, for two
    /// stores of one thread; taking it for absent would only send the caller on to wait in an insert.
    pub fn get(&self, session: SessionHash) -> Option<Pin> {
        let key = Key::of(session);
        self.settled(key, |table| table.get(key))
    }

    /// Notes that a session was seen now; the time only rises. Does nothing without a pin.
    pub fn touch(&self, session: SessionHash, now: jiff::Timestamp) {
        let key = Key::of(session);
        self.settled(key, |table| table.touch(key, seconds(now)));
    }

    /// Pins a session that has no pin, or whose pin is still `replaces` (seen whenever).
    ///
    /// Of many at once for one session, one is told that its pin is inserted and the others get that
    /// pin; at the limit they may be told that the table is full instead.
    pub fn insert(&self, session: SessionHash, replaces: Option<Pin>, new: Pin) -> InsertOutcome {
        let key = Key::of(session);
        loop {
            let table = self.current.load();
            let step = match table.next() {
                // No pin is made in a worn table, so that a successor always has room for all of its pins.
                None if table.is_worn() => {
                    self.begin_move(&table);
                    continue;
                }
                None => table.insert(key, replaces, new, Room::Own, &self.population),
                Some(next) => {
                    if table.move_share(SHARE, next) {
                        self.end_move(&table, next);
                    }
                    table.carry(key, next);
                    next.insert(key, replaces, new, Room::BesideCarried, &self.population)
                }
            };
            match step {
                Step::Done(outcome) => return outcome,
                Step::Frozen => {}
                Step::NoRoom => self.maintain(),
            }
        }
    }

    /// Removes every pin that has ended, and tells how many these were.
    ///
    /// A pin that is touched or replaced between the question and its removal is asked about again. A pin
    /// that is being moved to a larger table meanwhile is left for the next time.
    pub fn remove_expired(&self, is_expired: &dyn Fn(SessionHash, Pin) -> bool) -> usize {
        self.maintain();
        let table = self.current.load_full();
        let mut removed = 0;
        for index in 0..table.capacity() {
            if table.remove_if(index, |key, pin| is_expired(key.session(), pin)) {
                self.population.leave();
                removed += 1;
            }
        }
        removed
    }

    /// Shows every pin once, in no particular order.
    ///
    /// A pin that is made or removed meanwhile may be shown or not.
    pub fn iter(&self, f: &mut dyn FnMut(SessionHash, Pin)) {
        self.maintain();
        let table = self.current.load_full();
        for index in 0..table.capacity() {
            let (session, pin) = match table.occupied(index) {
                None => continue,
                Some(Occupied::Here(key, pin)) => (key.session(), Some(pin)),
                Some(Occupied::Elsewhere(key)) => (key.session(), self.get(key.session())),
            };
            if let Some(pin) = pin {
                f(session, pin);
            }
        }
    }

    /// Completes a move to another table, and begins and completes one that is due.
    ///
    /// Meant for a background thread every 100 ms or so: with it, inserts have little to move. Takes
    /// up to a second with millions of pins; waits for nobody and nobody waits for it.
    pub fn maintain(&self) {
        let table = self.current.load_full();
        if table.next().is_none() {
            let is_roomy = table.capacity() > SEGMENT && self.len().saturating_mul(4) < table.capacity();
            if is_roomy {
                table.wear_out();
            }
            if table.is_worn() {
                self.begin_move(&table);
            }
        }
        if let Some(next) = table.next() {
            table.move_all(next);
            self.end_move(&table, next);
        }
    }

    /// How many pins there are.
    pub fn len(&self) -> usize {
        self.population.live.load(Ordering::Relaxed)
    }

    /// Whether there is no pin.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let table = self.current.load();
        size_of::<Self>() + table.bytes() + table.next().map_or(0, |next| next.bytes())
    }

    /// Does something where the pin of a session is, again if it was carried off meanwhile.
    fn settled<T>(&self, key: Key, action: impl Fn(&Table) -> Result<T, Frozen>) -> T {
        loop {
            let table = self.current.load();
            let done = match table.next() {
                None => action(&table),
                Some(next) => {
                    table.carry(key, next);
                    action(next)
                }
            };
            if let Ok(done) = done {
                return done;
            }
        }
    }

    /// Gives a worn table a successor; only the first one counts.
    ///
    /// The pins are counted after the table is worn, so only inserts already under way can add to them.
    fn begin_move(&self, table: &Table) {
        table.succeed(Table::with_capacity(capacity_for(self.len())));
    }

    fn end_move(&self, table: &Arc<Table>, next: &Arc<Table>) {
        self.current.compare_and_swap(table, Arc::clone(next));
    }
}

impl fmt::Debug for PinTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinTable")
            .field("len", &self.len())
            .field("max_pins", &self.population.max)
            .finish_non_exhaustive()
    }
}

/// How many pins there are, counting those that are about to be written.
///
/// It lies on cache lines of its own, so that counting does not disturb readers.
#[repr(align(128))]
struct Population {
    live: AtomicUsize,
    max: usize,
}

impl Population {
    /// Counts one more, unless that is too many.
    fn admit(&self) -> bool {
        let more = |live| (live < self.max).then_some(live + 1);
        self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn leave(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
