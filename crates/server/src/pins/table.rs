//! One table of pins: open addressing with linear probing, and the steps of moving to a successor.
//!
//! A slot is four words. Its two key words go from 0 to a value once and never change again, so
//! the way that a key takes through the table only ever gets longer at its end. The `state` word says
//! what the slot holds, and every change of a pin is a compare-and-swap of it:
//!
//! ```text
//! UNUSED ──┐                      ┌─ last seen ─┐
//!          ├─> WRITING ──> HELD ──┴─────────────┘
//! REMOVED ─┘      ^          ├──> REMOVED
//!                 └──────────┘
//! ```
//!
//! plus a frozen mark, which ends all changes. `WRITING` lasts for two stores of one thread.

use std::hint::spin_loop;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use serin_core::ids::SessionHash;
use serin_core::routing::{CohortId, Pin};

use super::{InsertOutcome, Population};

/// Slots that are allocated at a time; a table has a multiple of it.
pub(super) const SEGMENT: usize = 4_096;

/// Key words with a meaning of their own.
const NONE: u64 = 0;
const SEALED: u64 = u64::MAX;

/// How often a thread looks again at a pin that is being written before it yields its processor.
const PATIENCE: u32 = 200;

/// Slots of a new table: 15/8 per pin, which is 60 bytes, and 40 bytes by the time it is worn.
pub(super) fn capacity_for(pins: usize) -> usize {
    (pins.saturating_mul(15) / 8).next_multiple_of(SEGMENT).max(SEGMENT)
}

/// A session in the two words of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    hi: u64,
    lo: u64,
}

impl Key {
    // So that the two reserved values stand for hashes that are as unlikely as any, and not for small numbers.
    const MASK: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The key of a session. Hashes with a half that falls on a reserved value share a key with a
    /// neighbour: less likely by far than that two sessions share a hash.
    pub(super) fn of(session: SessionHash) -> Self {
        let word = |half: u64| (half ^ Self::MASK).clamp(NONE + 1, SEALED - 1);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken one by one")]
        Self { hi: word((session.0 >> 64) as u64), lo: word(session.0 as u64) }
    }

    pub(super) fn session(self) -> SessionHash {
        SessionHash(u128::from(self.hi ^ Self::MASK) << 64 | u128::from(self.lo ^ Self::MASK))
    }
}

/// The state word: last seen in the low half, above it what the slot holds, the frozen mark, and a
/// version that rises with every pin written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State(u64);

impl State {
    const UNUSED: u64 = 0;
    const HELD: u64 = 1 << 32;
    const WRITING: u64 = 2 << 32;
    const REMOVED: u64 = 3 << 32;
    const HOLDS: u64 = 3 << 32;
    const FROZEN: u64 = 4 << 32;
    const VERSION: u64 = 8 << 32;

    fn holds(self) -> u64 {
        self.0 & Self::HOLDS
    }

    fn is_frozen(self) -> bool {
        self.0 & Self::FROZEN != 0
    }

    fn version(self) -> u64 {
        self.0 / Self::VERSION
    }

    fn last_seen(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
        let low = self.0 as u32;
        low
    }

    fn seen_at(self, last_seen: u32) -> Self {
        Self(self.0 >> 32 << 32 | u64::from(last_seen))
    }

    /// The state while the next pin is written into the slot.
    fn writing(self) -> Self {
        // 29 bits are left for it.
        let version = (self.version() + 1) % (1 << 29);
        Self((version * Self::VERSION) | Self::WRITING)
    }

    fn with(self, holds: u64) -> Self {
        Self(self.0 & !Self::HOLDS | holds)
    }
}

/// 32 bytes, so that two lie in a cache line and none across two.
#[repr(align(32))]
#[derive(Default)]
struct Slot {
    hi: AtomicU64,
    lo: AtomicU64,
    /// Cohort in the high half, pinned-at in the low half; written only under `WRITING`.
    assigned: AtomicU64,
    state: AtomicU64,
}

/// What a slot says.
enum Reading {
    Frozen(Option<Pin>),
    Writing,
    Held(State, Pin),
    Free(State),
}

impl Slot {
    fn read(&self) -> Reading {
        let mut state = State(self.state.load(Ordering::Acquire));
        loop {
            if state.holds() == State::WRITING {
                return Reading::Writing;
            }
            let assigned = self.assigned.load(Ordering::Acquire);
            // Had another pin been written meanwhile, the load above would have made its version visible.
            let again = State(self.state.load(Ordering::Acquire));
            if again.version() != state.version() || again.holds() != state.holds() {
                state = again;
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken one by one")]
            let held = (state.holds() == State::HELD).then(|| Pin {
                cohort: CohortId((assigned >> 32) as u32),
                pinned_at: assigned as u32,
                last_seen: again.last_seen(),
            });
            return match held {
                pin if again.is_frozen() => Reading::Frozen(pin),
                Some(pin) => Reading::Held(again, pin),
                None => Reading::Free(again),
            };
        }
    }

    /// Takes the slot from one state to another; nobody was faster if it succeeds.
    fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Writes a pin over a state that is neither frozen nor being written.
    fn write(&self, over: State, pin: Pin) -> bool {
        let writing = over.writing();
        if !self.change(over, writing) {
            return false;
        }
        let assigned = u64::from(pin.cohort.0) << 32 | u64::from(pin.pinned_at);
        self.assigned.store(assigned, Ordering::Release);
        let held = writing.with(State::HELD).seen_at(pin.last_seen);
        self.state.store(held.0, Ordering::Release);
        true
    }

    /// Ends all changes, and tells what pin there was.
    fn freeze(&self) -> Option<Pin> {
        let mut pause = Pause::default();
        loop {
            match self.read() {
                Reading::Frozen(pin) => return pin,
                Reading::Writing => pause.wait(),
                Reading::Held(state, _) | Reading::Free(state) => {
                    self.change(state, State(state.0 | State::FROZEN));
                }
            }
        }
    }

    /// The first half of taking the slot: what its high key word is now, and whether it was unused.
    fn take_hi(&self, hi: u64) -> (u64, bool) {
        match self.hi.load(Ordering::Acquire) {
            NONE => match self.hi.compare_exchange(NONE, hi, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => (hi, true),
                Err(present) => (present, false),
            },
            present => (present, false),
        }
    }

    /// The second half: what its low key word is now. Whoever has the same high word may do this, so
    /// nobody waits for a thread that stands between the two.
    fn take_lo(&self, lo: u64) -> u64 {
        match self.lo.load(Ordering::Acquire) {
            NONE => match self.lo.compare_exchange(NONE, lo, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => lo,
                Err(present) => present,
            },
            present => present,
        }
    }
}

/// Waits for a thread that is between two stores: it may have lost its processor there.
#[derive(Default)]
struct Pause(u32);

impl Pause {
    fn wait(&mut self) {
        self.0 += 1;
        if self.0 < PATIENCE { spin_loop() } else { thread::yield_now() }
    }
}

/// What was asked for has been carried off to the successor, or may have been.
#[derive(Debug)]
pub(super) struct Frozen;

/// How an insert went.
pub(super) enum Step {
    Done(InsertOutcome),
    Frozen,
    NoRoom,
}

/// Which slots an insert may take.
#[derive(Clone, Copy)]
pub(super) enum Room {
    /// Any.
    Own,
    /// Those that the table has to spare while pins are still being carried into it.
    BesideCarried,
}

/// What a slot holds.
pub(super) enum Occupied {
    Here(Key, Pin),
    Elsewhere(Key),
}

/// Where the way of a key ends.
enum Found<'a> {
    Here(&'a Slot),
    Nowhere,
    Frozen,
}

/// Where a key may be written.
enum Claim<'a> {
    Slot(&'a Slot),
    Frozen,
    NoRoom,
}

/// One table of pins.
///
/// **Invariant:** a successor has room for all pins that are carried into it. It has 15/8 slots per
/// pin when it is made; from then on only inserts that had already looked for a successor add pins to
/// the worn table, one per thread; and inserts leave three quarters of the successor to the move.
pub(super) struct Table {
    segments: Box<[OnceLock<Box<[Slot]>>]>,
    capacity: usize,
    seed: (u64, u64),
    next: OnceLock<Arc<Table>>,
    counts: Counts,
}

/// What changes with every insert, away from what readers look at.
#[derive(Default)]
#[repr(align(128))]
struct Counts {
    /// Slots taken, for good.
    used: AtomicUsize,
    /// Slots taken beside those of carried pins during the move into this table.
    beside_carried: AtomicUsize,
    /// Whether the table is to be replaced although it has room.
    worn_out: AtomicBool,
    /// Slots that somebody has begun to move to the successor, and has moved.
    begun: AtomicUsize,
    moved: AtomicUsize,
}

impl Table {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        // Where a pin lies must not be foreseeable, or chosen session keys could all meet in one place.
        let seed = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), capacity);
        Self {
            segments: iter::repeat_with(OnceLock::new).take(capacity / SEGMENT).collect(),
            capacity,
            seed: (seed(), seed()),
            next: OnceLock::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn next(&self) -> Option<&Arc<Self>> {
        self.next.get()
    }

    /// Names the successor, if there is none.
    pub(super) fn succeed(&self, next: Self) {
        // Another thread may have been faster, and its table is as good.
        let _faster = self.next.set(Arc::new(next));
    }

    pub(super) fn is_worn(&self) -> bool {
        self.counts.used.load(Ordering::Acquire) >= self.capacity / 5 * 4
            || self.counts.worn_out.load(Ordering::Acquire)
    }

    pub(super) fn wear_out(&self) {
        self.counts.worn_out.store(true, Ordering::SeqCst);
    }

    pub(super) fn bytes(&self) -> usize {
        let segments = self.segments.iter().filter(|segment| segment.get().is_some()).count();
        size_of::<Self>() + size_of_val(&*self.segments) + segments * SEGMENT * size_of::<Slot>()
    }

    pub(super) fn get(&self, key: Key) -> Result<Option<Pin>, Frozen> {
        let slot = match self.find(key) {
            Found::Here(slot) => slot,
            Found::Nowhere => return Ok(None),
            Found::Frozen => return Err(Frozen),
        };
        let mut pause = Pause::default();
        loop {
            match slot.read() {
                Reading::Frozen(_) => return Err(Frozen),
                Reading::Held(_, pin) => return Ok(Some(pin)),
                Reading::Free(_) => return Ok(None),
                Reading::Writing => pause.wait(),
            }
        }
    }

    pub(super) fn touch(&self, key: Key, now: u32) -> Result<(), Frozen> {
        let slot = match self.find(key) {
            Found::Here(slot) => slot,
            Found::Nowhere => return Ok(()),
            Found::Frozen => return Err(Frozen),
        };
        loop {
            let state = State(slot.state.load(Ordering::Relaxed));
            if state.is_frozen() {
                return Err(Frozen);
            }
            // A pin that is being written is as new as this; most touches fall into a second already noted.
            let is_news = state.holds() == State::HELD && state.last_seen() < now;
            if !is_news || slot.change(state, state.seen_at(now)) {
                return Ok(());
            }
        }
    }

    pub(super) fn insert(
        &self,
        key: Key,
        replaces: Option<Pin>,
        new: Pin,
        room: Room,
        population: &Population,
    ) -> Step {
        let mut pause = Pause::default();
        loop {
            let (slot, free) = match self.find(key) {
                Found::Frozen => return Step::Frozen,
                Found::Nowhere => (None, State(State::UNUSED)),
                Found::Here(slot) => match slot.read() {
                    Reading::Frozen(_) => return Step::Frozen,
                    Reading::Writing => {
                        pause.wait();
                        continue;
                    }
                    Reading::Held(state, pin) => {
                        let same = |old: Pin| old.cohort == pin.cohort && old.pinned_at == pin.pinned_at;
                        if !replaces.is_some_and(same) {
                            return Step::Done(InsertOutcome::Existing(pin));
                        }
                        if slot.write(state, new) {
                            return Step::Done(InsertOutcome::Inserted);
                        }
                        continue;
                    }
                    Reading::Free(state) => (Some(slot), state),
                },
            };
            if !population.admit() {
                return Step::Done(InsertOutcome::Full);
            }
            let claim = slot.map_or_else(|| self.claim(key, room), Claim::Slot);
            let step = match claim {
                Claim::Slot(slot) if slot.write(free, new) => return Step::Done(InsertOutcome::Inserted),
                Claim::Slot(_) => None,
                Claim::Frozen => Some(Step::Frozen),
                Claim::NoRoom => Some(Step::NoRoom),
            };
            population.leave();
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Removes the pin of a slot if it should go; asks again when the pin changes meanwhile.
    pub(super) fn remove_if(&self, index: usize, should_go: impl Fn(Key, Pin) -> bool) -> bool {
        let Some((key, slot)) = self.keyed(index) else { return false };
        loop {
            match slot.read() {
                Reading::Held(state, pin) if should_go(key, pin) => {
                    if slot.change(state, state.with(State::REMOVED)) {
                        return true;
                    }
                }
                Reading::Held(..) | Reading::Frozen(_) | Reading::Writing | Reading::Free(_) => return false,
            }
        }
    }

    pub(super) fn occupied(&self, index: usize) -> Option<Occupied> {
        let (key, slot) = self.keyed(index)?;
        let mut pause = Pause::default();
        loop {
            match slot.read() {
                Reading::Held(_, pin) => return Some(Occupied::Here(key, pin)),
                Reading::Frozen(Some(_)) => return Some(Occupied::Elsewhere(key)),
                Reading::Frozen(None) | Reading::Free(_) => return None,
                Reading::Writing => pause.wait(),
            }
        }
    }

    /// Freezes what this table says about a key, and makes the successor say the same.
    ///
    /// Freezing the absence of a key means sealing the end of its way: whoever would write it here
    /// meets the seal, there or at a slot that it can no longer complete.
    pub(super) fn carry(&self, key: Key, next: &Self) {
        for index in self.way(key) {
            let slot = &self.segment(index)[index % SEGMENT];
            match slot.take_hi(SEALED).0 {
                SEALED => return,
                hi if hi != key.hi => {}
                _ if slot.take_lo(SEALED) == key.lo => return Self::carry_slot(key, slot, next),
                _ => {}
            }
        }
    }

    /// Moves the next few slots, and tells whether all slots have been moved by that.
    pub(super) fn move_share(&self, share: usize, next: &Self) -> bool {
        if self.counts.begun.load(Ordering::Relaxed) >= self.capacity {
            return false;
        }
        let begin = self.counts.begun.fetch_add(share, Ordering::Relaxed).min(self.capacity);
        let end = begin.saturating_add(share).min(self.capacity);
        self.move_slots(begin..end, next);
        let before = self.counts.moved.fetch_add(end - begin, Ordering::AcqRel);
        end > begin && before + (end - begin) == self.capacity
    }

    /// Moves all slots, also those that others are at.
    pub(super) fn move_all(&self, next: &Self) {
        self.move_slots(0..self.capacity, next);
    }

    fn move_slots(&self, range: std::ops::Range<usize>, next: &Self) {
        for index in range {
            let slot = &self.segment(index)[index % SEGMENT];
            let hi = slot.take_hi(SEALED).0;
            if hi == SEALED {
                continue;
            }
            let lo = slot.take_lo(SEALED);
            if lo != SEALED {
                Self::carry_slot(Key { hi, lo }, slot, next);
            }
        }
    }

    /// Carries one pin across. Doing it twice is harmless, however late: the first one takes the
    /// successor's slot out of `UNUSED`, to which it never returns, and what is frozen stays the same.
    fn carry_slot(key: Key, slot: &Slot, next: &Self) {
        let Some(pin) = slot.freeze() else { return };
        match next.claim_carried(key) {
            Claim::Slot(slot) => {
                slot.write(State(State::UNUSED), pin);
            }
            // The successor is being left in its turn: the pin got there long ago.
            Claim::Frozen => {}
            Claim::NoRoom => panic!("a successor has room for all pins that are carried into it"),
        }
    }

    /// Where a key is.
    fn find(&self, key: Key) -> Found<'_> {
        for index in self.way(key) {
            let Some(segment) = self.segments[index / SEGMENT].get() else { return Found::Nowhere };
            let slot = &segment[index % SEGMENT];
            match slot.hi.load(Ordering::Acquire) {
                NONE => return Found::Nowhere,
                SEALED => return Found::Frozen,
                hi if hi == key.hi => match slot.lo.load(Ordering::Acquire) {
                    // Nobody with this key has been here, as it would be its slot.
                    NONE => return Found::Nowhere,
                    lo if lo == key.lo => return Found::Here(slot),
                    _ => {}
                },
                _ => {}
            }
        }
        Found::Nowhere
    }

    /// A slot for a new key, within the room that an insert may take.
    fn claim(&self, key: Key, room: Room) -> Claim<'_> {
        match room {
            Room::Own => self.claim_carried(key),
            Room::BesideCarried => {
                if self.counts.beside_carried.fetch_add(1, Ordering::Relaxed) >= self.capacity / 4 {
                    return Claim::NoRoom;
                }
                self.claim_carried(key)
            }
        }
    }

    /// A slot for a key.
    fn claim_carried(&self, key: Key) -> Claim<'_> {
        for index in self.way(key) {
            let slot = &self.segment(index)[index % SEGMENT];
            let (hi, was_unused) = slot.take_hi(key.hi);
            if was_unused {
                self.counts.used.fetch_add(1, Ordering::AcqRel);
            }
            if hi == SEALED {
                return Claim::Frozen;
            }
            if hi == key.hi && slot.take_lo(key.lo) == key.lo {
                return Claim::Slot(slot);
            }
        }
        Claim::NoRoom
    }

    /// The slots of a key in the order in which they are tried: from its home on, once around.
    fn way(&self, key: Key) -> impl Iterator<Item = usize> + use<> {
        let mixed = fold(fold(key.hi ^ self.seed.0, key.lo ^ self.seed.1), Key::MASK);
        #[expect(clippy::cast_possible_truncation, reason = "64 bits scaled to the capacity are below it")]
        let home = ((u128::from(mixed) * self.capacity as u128) >> 64) as usize;
        (home..self.capacity).chain(0..home)
    }

    fn segment(&self, index: usize) -> &[Slot] {
        self.segments[index / SEGMENT]
            .get_or_init(|| iter::repeat_with(Slot::default).take(SEGMENT).collect())
    }

    /// A slot whose key is complete.
    fn keyed(&self, index: usize) -> Option<(Key, &Slot)> {
        let slot = &self.segments[index / SEGMENT].get()?[index % SEGMENT];
        let key = Key { hi: slot.hi.load(Ordering::Acquire), lo: slot.lo.load(Ordering::Acquire) };
        let is_complete = ![NONE, SEALED].contains(&key.hi) && ![NONE, SEALED].contains(&key.lo);
        is_complete.then_some((key, slot))
    }
}

/// Both halves of a product, one over the other.
#[expect(clippy::cast_possible_truncation, reason = "the two halves are taken one by one")]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product >> 64) as u64 ^ product as u64
}
