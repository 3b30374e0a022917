// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Charges that commands keep and return.

use std::cell::RefCell;
use std::sync::Arc;

use super::*;

const SIZE: u64 = 1 << 20;
const VIEW: u32 = 6;
const SURFACE: u32 = 8;
const QUERY: u32 = 9;
const TARGET: u32 = 10;

/// A command with its fields, and an object type.
fn command(number: u32, kind: u32, words: &[u32]) -> Vec<u32> {
    let mut stream = vec![number | kind << 8 | (words.len() as u32) << 16];
    stream.extend(words);
    stream
}

/// A context, and resources of [`SIZE`] bytes.
struct Bench {
    budget: Budget,
    resources: RefCell<HashMap<u32, SharedCharge>>,
    holdings: Holdings,
    leaked: ChargeSet,
}

impl Bench {
    fn new() -> Self {
        let budget = Budget::new(1 << 30);
        Self {
            holdings: Holdings::new(&budget).unwrap(),
            budget,
            resources: RefCell::default(),
            leaked: ChargeSet::default(),
        }
    }

    fn make(&self, id: u32) {
        let charge = Arc::new(self.budget.charge(SIZE).unwrap());
        let before = self.resources.borrow_mut().insert(id, charge);
        assert!(before.is_none());
    }

    fn unref(&self, id: u32) {
        self.resources.borrow_mut().remove(&id).unwrap();
    }

    fn note(&mut self, stream: &[Vec<u32>]) {
        let hold = |id| self.resources.borrow().get(&id).cloned();
        let stream = stream.concat();
        self.holdings
            .charge_stream(&stream, hold, &mut self.leaked)
            .unwrap();
    }

    fn submit(&mut self, stream: &[Vec<u32>]) {
        self.note(stream);
        self.holdings.stream_succeeded();
    }

    fn fail(&mut self, stream: &[Vec<u32>]) {
        self.note(stream);
        self.holdings.stream_failed(&mut self.leaked);
    }

    /// Number of resources that are charged.
    fn held(&self) -> u64 {
        (self.budget.used() - self.contexts() * CONTEXT_COST) / SIZE
    }

    /// Number of sub-contexts, including the main one.
    fn contexts(&self) -> u64 {
        let failed = self.holdings.removed_by_failed.iter();
        let failed: usize = failed.map(|removed| removed.sub_contexts.len()).sum();
        (self.holdings.sub_contexts.len() + failed) as u64
    }
}

type Commands = Vec<Vec<u32>>;

/// Commands that reference resource 1, and commands that release it.
fn ways() -> Vec<(&'static str, Commands, Commands)> {
    let make = |kind, words: &[u32]| command(1, kind, words);
    let destroy = |handle| command(3, 0, &[handle]);
    let surface = || make(SURFACE, &[7, 1, 2, 0, 0]);
    let view = || make(VIEW, &[7, 1, 2, 0, 0, 0]);
    vec![
        ("a view", vec![view()], vec![destroy(7)]),
        ("a surface", vec![surface()], vec![destroy(7)]),
        (
            "one with samples",
            vec![make(11, &[7, 1, 2, 0, 0, 4])],
            vec![destroy(7)],
        ),
        (
            "a query",
            vec![make(QUERY, &[7, 0, 0, 1])],
            vec![destroy(7)],
        ),
        (
            "a color buffer",
            vec![surface(), command(5, 0, &[2, 0, 0, 7]), destroy(7)],
            vec![command(5, 0, &[1, 0, 0])],
        ),
        (
            "a depth buffer",
            vec![surface(), command(5, 0, &[0, 7]), destroy(7)],
            vec![command(5, 0, &[0, 0])],
        ),
        (
            "a bound view",
            vec![view(), command(10, 0, &[1, 3, 7]), destroy(7)],
            vec![command(10, 0, &[1, 0, 0])],
        ),
        (
            "a bound view whose place is taken",
            vec![view(), command(10, 0, &[1, 3, 7]), destroy(7)],
            vec![command(10, 0, &[1, 3, 0])],
        ),
        (
            "vertices",
            vec![command(6, 0, &[16, 0, 9, 16, 0, 1])],
            vec![command(6, 0, &[16, 0, 9])],
        ),
        (
            "indices",
            vec![command(11, 0, &[1, 2, 0])],
            vec![command(11, 0, &[0])],
        ),
        (
            "uniforms",
            vec![command(27, 0, &[0, 4, 0, 16, 1])],
            vec![command(27, 0, &[0, 4, 0, 0, 0])],
        ),
        (
            "a shader's buffer",
            vec![command(34, 0, &[0, 2, 0, 16, 9, 0, 16, 1])],
            vec![command(34, 0, &[0, 3, 0, 0, 0])],
        ),
        (
            "an image",
            vec![command(35, 0, &[0, 2, 1, 2, 0, 0, 1])],
            vec![command(35, 0, &[0, 2, 0, 0, 0, 0, 0])],
        ),
        (
            "atomic counters",
            vec![command(40, 0, &[1, 0, 16, 1])],
            vec![command(40, 0, &[1, 0, 0, 0])],
        ),
        (
            "what a context in the context has",
            vec![command(29, 0, &[5]), view()],
            vec![command(30, 0, &[5])],
        ),
        (
            // The library caches each set of targets.
            "targets",
            vec![
                command(29, 0, &[5]),
                make(TARGET, &[7, 1, 0, 16]),
                command(25, 0, &[0, 7]),
                command(25, 0, &[0]),
                destroy(7),
            ],
            vec![command(30, 0, &[5])],
        ),
    ]
}

#[test]
fn references_to_a_resource_keep_its_charge() {
    for (what, hold, let_go) in ways() {
        let mut bench = Bench::new();
        bench.make(1);
        bench.submit(&hold);
        bench.unref(1);
        assert_eq!(bench.held(), 1, "{what} holds it");
        bench.submit(&let_go);
        assert_eq!(bench.held(), 0, "{what} lets go of it");

        // The end of the context releases everything.
        bench.make(1);
        bench.submit(&hold);
        bench.unref(1);
        let Bench {
            budget, holdings, ..
        } = bench;
        drop(holdings);
        assert_eq!(budget.used(), 0, "{what}");
    }
}

#[test]
fn releases_of_a_failed_stream_are_ignored() {
    for (what, hold, let_go) in ways() {
        let mut bench = Bench::new();
        bench.make(1);
        bench.submit(&hold);
        bench.unref(1);
        bench.fail(&let_go);
        assert_eq!(bench.held(), 1, "{what}");
        // Later releases are ignored too.
        bench.submit(&let_go);
        bench.make(2);
        bench.submit(&[command(1, SURFACE, &[8, 2, 2, 0, 0]), command(3, 0, &[8])]);
        bench.unref(2);
        assert_eq!(bench.held(), 2, "{what}");
    }
}

/// The library leaks a bound view if the handle that replaces it is invalid, and the buffer of a query
/// that it cannot create.
#[test]
fn leaked_memory_stays_charged_for_ever() {
    let lose_view: [&[Vec<u32>]; 2] = [
        &[
            command(1, VIEW, &[7, 1, 2, 0, 0, 0]),
            command(10, 0, &[1, 0, 7]),
        ],
        &[command(10, 0, &[1, 0, 99])],
    ];
    let lose_query: [&[Vec<u32>]; 2] = [&[], &[command(1, QUERY, &[7, 0, 0, 1])]];
    for [before, failing] in [lose_view, lose_query] {
        for is_second in [false, true] {
            let mut bench = Bench::new();
            bench.make(1);
            bench.submit(before);
            if is_second {
                bench.fail(&[]);
            }
            bench.fail(failing);
            bench.unref(1);
            let Bench {
                budget,
                holdings,
                leaked,
                ..
            } = bench;
            drop(holdings);
            assert_eq!(budget.used(), SIZE);
            drop(leaked);
            assert_eq!(budget.used(), 0);
        }
    }
}

#[test]
fn objects_belong_to_their_sub_context() {
    let mut bench = Bench::new();
    bench.make(1);
    let view = || command(1, VIEW, &[7, 1, 2, 0, 0, 0]);
    bench.submit(&[command(29, 0, &[5]), view()]);
    bench.unref(1);
    // An object of another sub-context with the same handle; unknown sub-contexts change nothing.
    bench.submit(&[
        command(28, 0, &[0]),
        command(3, 0, &[7]),
        command(28, 0, &[6]),
    ]);
    bench.submit(&[command(28, 0, &[0]), command(30, 0, &[0])]);
    assert_eq!(bench.held(), 1);
    // The current sub-context is unknown, unless the stream selects it.
    bench.submit(&[command(3, 0, &[7])]);
    assert_eq!(bench.held(), 1);
    bench.submit(&[command(28, 0, &[5]), command(3, 0, &[7])]);
    assert_eq!(bench.held(), 0);
    bench.make(1);
    bench.submit(&[view()]);
    bench.unref(1);
    bench.submit(&[command(28, 0, &[5]), command(3, 0, &[7])]);
    bench.submit(&[command(28, 0, &[0]), command(3, 0, &[7])]);
    assert_eq!(bench.held(), 1, "it may be the one's or the other's");
}

/// The library compares the ids only, and skips the command.
#[test]
fn places_keep_a_resource_that_had_the_same_id() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.make(1);
        bench.submit(&[command(6, 0, &[16, 0, 1])]);
        bench.unref(1);
    }
    assert_eq!(bench.held(), 3);
}

#[test]
fn objects_and_contexts_are_charged() {
    let budget = Budget::new(2 * CONTEXT_COST + 20 * OBJECT_COST);
    let mut holdings = Holdings::new(&budget).unwrap();
    let mut leaked = ChargeSet::default();
    let mut submit = |holdings: &mut Holdings, stream: &[u32]| {
        let noted = holdings.charge_stream(stream, |_| None, &mut leaked);
        noted.map(|()| holdings.stream_succeeded())
    };
    let blends = |handles: std::ops::Range<u32>| -> Vec<u32> {
        handles
            .flat_map(|handle| command(1, 1, &[handle]))
            .collect()
    };
    submit(&mut holdings, &command(29, 0, &[1])).unwrap();
    let more = submit(&mut holdings, &command(29, 0, &[2]));
    assert_eq!(more, Err(StreamError::Budget(CONTEXT_COST)));
    let used = budget.used();
    submit(
        &mut holdings,
        &[command(28, 0, &[1]), blends(1..21)].concat(),
    )
    .unwrap();
    let more = submit(&mut holdings, &blends(21..22));
    assert_eq!(more, Err(StreamError::Budget(OBJECT_COST)));
    let destroy = |handle| command(3, 0, &[handle]);
    let all: Vec<u32> = (1..21).flat_map(destroy).collect();
    submit(&mut holdings, &[command(28, 0, &[1]), all].concat()).unwrap();
    assert_eq!(budget.used(), used);
    // A shader is charged by its length.
    let shader = command(1, 4, &[7; 1000]);
    let more = submit(&mut holdings, &shader);
    assert!(matches!(more, Err(StreamError::Budget(bytes)) if bytes > 64_000));
    drop(holdings);
    assert_eq!(budget.used(), 0);
}

#[test]
fn repeated_failed_streams_use_no_memory() {
    let mut bench = Bench::new();
    bench.make(1);
    let view = command(1, VIEW, &[7, 1, 2, 0, 0, 0]);
    let bind = command(10, 0, &[1, 0, 7]);
    bench.submit(&[view, bind.clone()]);
    for _ in 0..100 {
        bench.fail(&[bind.clone(), command(10, 0, &[1, 0]), command(3, 0, &[7])]);
    }
    assert!(bench.holdings.removed_by_failed.len() <= 1);
    assert_eq!((bench.holdings.kept.len(), bench.leaked.len()), (0, 1));
}

#[test]
fn unaccounted_commands_are_refused() {
    let mut bench = Bench::new();
    bench.make(1);
    for number in [48, 53, 55] {
        let stream = [command(6, 0, &[16, 0, 1]), command(number, 0, &[0; 11])].concat();
        let hold = |id| bench.resources.borrow().get(&id).cloned();
        let refused = bench
            .holdings
            .charge_stream(&stream, hold, &mut bench.leaked);
        assert_eq!(refused, Err(StreamError::Unaccounted(number)));
    }
    bench.unref(1);
    assert_eq!(bench.held(), 0, "nothing of a refused stream counts");
}

#[test]
fn invalid_places_use_no_memory() {
    let mut bench = Bench::new();
    bench.make(1);
    let view = command(1, VIEW, &[7, 1, 2, 0, 0, 0]);
    bench.submit(&[view]);
    for (shader, first) in [(u32::MAX, 0), (0, u32::MAX), (9, 9), (1, 128)] {
        bench.submit(&[
            command(10, 0, &[shader, first, 7]),
            command(27, 0, &[shader, first, 0, 0, 1]),
        ]);
    }
    assert!(bench.holdings.sub_contexts[&0].is_bounded(128));
    bench.unref(1);
    assert_eq!(bench.held(), 1);
}

/// Objects are searched once, not for each command and each handle in each sub-context, which took an
/// hour.
#[test]
fn many_sub_contexts_do_not_slow_commands_down() {
    const SUBS: u32 = 400;
    let mut bench = Bench::new();
    bench.make(1);
    let mut begin = Vec::new();
    for sub in 1..=SUBS {
        begin.extend([
            command(29, 0, &[sub]),
            command(1, VIEW, &[7, 1, 2, 0, 0, 0]),
        ]);
        for shader in 0..8 {
            begin.push(command(10, 0, &[&[shader, 0][..], &[7; 128]].concat()));
        }
    }
    bench.submit(&begin);
    bench.unref(1);
    // Their sub-context is unknown.
    let handles: Vec<u32> = (0..60_000).collect();
    let targets = vec![command(25, 0, &[&[0], &handles[..]].concat()); 16];
    let views = vec![command(10, 0, &[&[0, 0], &handles[..]].concat()); 16];
    for _ in 0..8 {
        bench.submit(&targets);
        bench.submit(&views);
    }
    bench.fail(&views);
    for _ in 0..8 {
        bench.fail(&targets);
        bench.fail(&views);
        bench.fail(&vec![command(10, 0, &[0, 0]); 4000]);
    }
    assert_eq!((bench.held(), bench.leaked.len()), (1, 1));
}
