//! What contexts hold of resources after the driver let go of these.
//!
//! An object that a command stream makes (a view, a surface) keeps its resource's memory, and so does
//! what is bound in a context. The library does not tell, so here is kept, from the commands, who holds
//! what: each has a part in the resource's charge, which goes back to the budget once nobody has.
//! Objects, and contexts in a context, are charged themselves.
//!
//! Where it cannot be told from the commands, it is assumed that memory is held: what a stream that
//! failed let go of is the context's until this goes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gpu::resource::{Budget, Charge};
use commands::{Command, Object, Slot};

mod commands;

/// A part in the charge of a resource.
pub(super) type Hold = Arc<Charge>;

/// What an object takes besides its resource, here, in the library and in GL.
const OBJECT_COST: u64 = 1024;
/// What a word of a shader takes once it is translated, and translated again by GL.
const SHADER_WORD_COST: u64 = 64;
/// What a context in a context takes: one of GL's.
pub(super) const CONTEXT_COST: u64 = 2 << 20;

/// Why a stream is refused before the library sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    /// The VM's budget does not have so many bytes.
    Budget(u64),
    /// A command that makes what would be in no account.
    Command(u32),
}

/// What is kept because it cannot be told whether it is held. Each is in it once, by its address.
#[derive(Debug, Default)]
pub(super) struct Kept(HashMap<usize, Hold>);

impl Kept {
    fn add(&mut self, hold: Hold) {
        self.0.insert(Arc::as_ptr(&hold).addr(), hold);
    }

    /// How many bytes are charged for it.
    #[cfg(feature = "fuzzing")]
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().map(|hold| hold.bytes()).sum()
    }

    fn extend(&mut self, holds: impl IntoIterator<Item = Hold>) {
        holds.into_iter().for_each(|hold| self.add(hold));
    }
}

/// An object: its own charges, and what it holds. Several where it was made several times.
#[derive(Debug, Default)]
struct Made {
    own: Vec<Charge>,
    of: Vec<Hold>,
}

/// A bound resource: its id, and its charge.
type Bound = Option<(u32, Hold)>;

/// A context in a context (`vrend_sub_context`).
#[derive(Debug)]
struct Sub {
    objects: HashMap<u32, Made>,
    bound: HashMap<Slot, Vec<Bound>>,
    kept: Kept,
    own: Option<Charge>,
}

/// What commands took away, for the case that they were not executed.
#[derive(Debug, Default)]
struct Gone {
    objects: Vec<Made>,
    subs: Vec<Sub>,
    holds: Vec<Hold>,
    /// What the library forgets about, and keeps for good, where a command fails.
    lost: Vec<Hold>,
}

impl Gone {
    fn is_empty(&self) -> bool {
        let Self {
            objects,
            subs,
            holds,
            lost,
        } = self;
        objects.is_empty() && subs.is_empty() && holds.is_empty() && lost.is_empty()
    }
}

/// What a context holds.
#[derive(Debug)]
pub(super) struct Holdings {
    subs: HashMap<u32, Sub>,
    /// Which of them commands are for, where that is known.
    current: Option<u32>,
    /// Whether there ever were several.
    has_subs: bool,
    /// Whether a stream failed: from then on, all that it may hold it holds.
    has_failed: bool,
    /// What the objects held then, by their handles, once one that came later may have lost what was bound
    /// as views. What is lost is taken out.
    may_be_lost: Option<HashMap<u32, Vec<Hold>>>,
    /// Whether what all objects hold was kept during this stream.
    has_kept_objects: bool,
    kept: Kept,
    gone: Gone,
    of_failed: Vec<Gone>,
    budget: Budget,
}

impl Sub {
    fn new(budget: &Budget) -> Self {
        Self {
            objects: HashMap::new(),
            bound: HashMap::new(),
            kept: Kept::default(),
            own: budget.charge(CONTEXT_COST),
        }
    }

    /// Binds to a place. What was there goes, but where the id is the same: then the library may
    /// not look again, and have what had this id before.
    fn bind(&mut self, slot: Slot, index: usize, bound: Bound, gone: &mut Vec<Hold>) {
        /// More than there are of any kind; the library refuses those beyond.
        const MOST: usize = 128;
        if index >= MOST || !slot.exists() {
            self.kept.extend(bound.map(|(_, hold)| hold));
            return;
        }
        let places = self.bound.entry(slot).or_default();
        if places.len() <= index {
            if bound.is_none() {
                return;
            }
            places.resize_with(index.saturating_add(1), || None);
        }
        let Some(place) = places.get_mut(index) else {
            return;
        };
        match (place.take(), &bound) {
            (Some((_, old)), Some((_, new))) if Arc::ptr_eq(&old, new) => {}
            (Some((old_id, old)), Some((id, _))) if old_id == *id => self.kept.add(old),
            (old, _) => gone.extend(old.map(|(_, old)| old)),
        }
        *place = bound;
    }

    /// Lets go of all places of a kind from `first` on.
    fn unbind_from(&mut self, slot: Slot, first: usize, gone: &mut Vec<Hold>) {
        let Some(places) = self.bound.get_mut(&slot) else {
            return;
        };
        let beyond = places.get_mut(first..).unwrap_or_default();
        gone.extend(beyond.iter_mut().filter_map(Option::take).map(|(_, h)| h));
    }

    /// What a view, a surface or a target has of its resource.
    fn object(&self, handle: u32) -> Bound {
        let made = self.objects.get(&handle)?;
        Some((handle, made.of.last()?.clone()))
    }

    /// What is bound as views.
    fn views(&self) -> impl Iterator<Item = Hold> {
        let views = self.bound.iter();
        let views = views.filter(|(slot, _)| matches!(slot, Slot::ScanoutSource(_)));
        let places = views.flat_map(|(_, places)| places.iter().flatten());
        places.map(|(_, hold)| hold.clone())
    }
}

impl Holdings {
    /// A context that has done nothing yet; `None` where the budget does not have it.
    pub(super) fn new(budget: &Budget) -> Option<Self> {
        let main = Sub::new(budget);
        main.own.as_ref()?;
        Some(Self {
            subs: HashMap::from([(0, main)]),
            current: Some(0),
            has_subs: false,
            has_failed: false,
            may_be_lost: None,
            has_kept_objects: false,
            kept: Kept::default(),
            gone: Gone::default(),
            of_failed: Vec::new(),
            budget: budget.clone(),
        })
    }

    /// Takes note of what a stream does, before it is executed; `hold` gives a part in the charge of
    /// a resource. [`Holdings::succeeded`] or [`Holdings::failed`] follows.
    ///
    /// # Errors
    /// Where it is not to be executed: then nothing is noted.
    pub(super) fn submit(
        &mut self,
        stream: &[u32],
        hold: impl Fn(u32) -> Option<Hold>,
        lost: &mut Kept,
    ) -> Result<(), CommandError> {
        let mut bytes: u64 = 0;
        for command in commands::commands(stream) {
            bytes = bytes.saturating_add(match command {
                Command::Create(object) => cost(&object),
                Command::CreateSub(_) => CONTEXT_COST,
                Command::Unaccounted(number) => return Err(CommandError::Command(number)),
                _ => 0,
            });
        }
        // Nobody else takes of it meanwhile.
        drop(
            self.budget
                .charge(bytes)
                .ok_or(CommandError::Budget(bytes))?,
        );
        self.has_kept_objects = false;
        // The library goes to another one where it looks after a query.
        if self.has_subs {
            self.current = None;
        }
        for command in commands::commands(stream) {
            if self.has_failed {
                self.note_all(&command, &hold, lost);
            } else if !self.of_subs(&command) {
                self.note(&command, &hold);
            }
        }
        Ok(())
    }

    /// Takes note of a command about contexts in the context; `false` where it is none.
    fn of_subs(&mut self, command: &Command<'_>) -> bool {
        match *command {
            Command::CreateSub(id) => {
                self.has_subs = true;
                if !self.subs.contains_key(&id) {
                    self.subs.insert(id, Sub::new(&self.budget));
                    self.current = Some(id);
                }
            }
            Command::SetSub(id) => {
                if self.subs.contains_key(&id) {
                    self.current = Some(id);
                }
            }
            Command::DestroySub(id) => {
                // The first one stays.
                if id != 0 {
                    self.gone.subs.extend(self.subs.remove(&id));
                    if self.current == Some(id) {
                        self.current = Some(0);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// Takes note of a command for the current context in the context.
    fn note(&mut self, command: &Command<'_>, hold: &impl Fn(u32) -> Option<Hold>) {
        let current = self.current.and_then(|id| self.subs.get_mut(&id));
        let Some(sub) = current else {
            // Whose it is is not known, so it is the context's.
            self.keep_all(command, hold);
            return;
        };
        let gone = &mut self.gone;
        match command {
            Command::Create(object) => {
                let of = object.resource.and_then(hold);
                if object.is_query {
                    gone.lost.extend(of.clone());
                }
                let made = sub.objects.entry(object.handle).or_default();
                made.own.extend(self.budget.charge(cost(object)));
                made.of.extend(of);
            }
            Command::Destroy(handle) => gone.objects.extend(sub.objects.remove(handle)),
            Command::Framebuffer { depth, colors } => {
                for (index, handle) in (0..).zip(*colors) {
                    let bound = sub.object(*handle);
                    sub.bind(Slot::Color, index, bound, &mut gone.holds);
                }
                sub.unbind_from(Slot::Color, colors.len(), &mut gone.holds);
                let bound = sub.object(*depth);
                sub.bind(Slot::Depth, 0, bound, &mut gone.holds);
            }
            Command::SamplerViews {
                shader,
                first,
                handles,
            } => {
                let slot = Slot::ScanoutSource(*shader);
                for (index, handle) in (*first as usize..).zip(*handles) {
                    let bound = sub.object(*handle);
                    sub.bind(slot, index, bound, &mut gone.lost);
                }
                let next = (*first as usize).saturating_add(handles.len());
                sub.unbind_from(slot, next, &mut gone.lost);
            }
            Command::Targets(handles) => {
                // The library keeps each set of them for the next time.
                for handle in *handles {
                    let bound = sub.object(*handle);
                    sub.kept.extend(bound.map(|(_, hold)| hold));
                }
            }
            Command::Bind(binding) => {
                let resources = binding.resources();
                let count = resources.len();
                for (index, id) in (binding.first as usize..).zip(resources) {
                    let bound = hold(id).map(|hold| (id, hold));
                    sub.bind(binding.slot, index, bound, &mut gone.holds);
                }
                if binding.is_all {
                    sub.unbind_from(binding.slot, count, &mut gone.holds);
                }
            }
            Command::CreateSub(_)
            | Command::SetSub(_)
            | Command::DestroySub(_)
            | Command::Unaccounted(_) => {}
        }
    }

    /// Keeps all that a command may have somebody hold for as long as the context is there.
    fn keep_all(&mut self, command: &Command<'_>, hold: &impl Fn(u32) -> Option<Hold>) {
        self.kept
            .extend(command.resources().into_iter().filter_map(hold));
        // All objects, once in a stream: to look for each handle in each of many contexts takes too long. None
        // is made before it is known again whose it is, and after a failure `subs` keeps what it has.
        if command.has_handles() && !self.has_failed && !self.has_kept_objects {
            self.has_kept_objects = true;
            let objects = self.subs.values().flat_map(|sub| sub.objects.values());
            let holds = objects.flat_map(|made| made.of.iter().cloned());
            self.kept.extend(holds);
        }
        let mut made = Made::default();
        match command {
            Command::Create(object) => made.own.extend(self.budget.charge(cost(object))),
            Command::CreateSub(_) => made.own.extend(self.budget.charge(CONTEXT_COST)),
            _ => return,
        }
        self.of_failed.push(Gone {
            objects: vec![made],
            ..Gone::default()
        });
    }

    /// Takes note of a command, any of which may fail now.
    fn note_all(
        &mut self,
        command: &Command<'_>,
        hold: &impl Fn(u32) -> Option<Hold>,
        lost: &mut Kept,
    ) {
        self.keep_all(command, hold);
        match command {
            Command::Create(object) if object.is_query => {
                lost.extend(object.resource.and_then(hold));
            }
            Command::SamplerViews { handles, .. } => {
                // None of these is added to any more.
                if self.may_be_lost.is_none() {
                    lost.extend(self.subs.values().flat_map(Sub::views));
                    let objects = self.of_failed.iter().flat_map(|gone| &gone.objects);
                    lost.extend(objects.flat_map(|made| made.of.iter().cloned()));
                }
                let subs = &self.subs;
                let by_handle = self.may_be_lost.get_or_insert_with(|| {
                    let mut by_handle = HashMap::<_, Vec<_>>::new();
                    let objects = subs.values().flat_map(|sub| &sub.objects);
                    for (handle, made) in objects {
                        let holds = by_handle.entry(*handle).or_default();
                        holds.extend(made.of.last().cloned());
                    }
                    by_handle
                });
                for handle in *handles {
                    lost.extend(by_handle.remove(handle).into_iter().flatten());
                }
            }
            _ => {}
        }
    }

    /// The stream was executed, to its end.
    pub(super) fn succeeded(&mut self) {
        self.gone = Gone::default();
    }

    /// The stream was executed up to some command, or not at all. What comes back never is added to
    /// `lost`.
    pub(super) fn failed(&mut self, lost: &mut Kept) {
        self.has_failed = true;
        let gone = std::mem::take(&mut self.gone);
        lost.extend(gone.lost.iter().cloned());
        // A driver may go on for ever with streams that fail.
        if !gone.is_empty() {
            self.of_failed.push(gone);
        }
    }
}

fn cost(object: &Object) -> u64 {
    let words = (object.words as u64).saturating_mul(SHADER_WORD_COST);
    OBJECT_COST.saturating_add(if object.is_shader { words } else { 0 })
}

#[cfg(test)]
mod tests;
