// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Inputs of `control_venus` in which commands succeed, from which libFuzzer goes on: random ones seldom get so far.
//! `UPDATE_SEEDS=1` writes them to the corpus.

use std::fs;
use std::path::Path;

use super::*;

/// The bytes of an input.
#[derive(Default)]
struct Seed(Vec<u8>);

/// Room for the largest answer, and one buffer each.
const SHAPE: u8 = 4;

impl Seed {
    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    /// A command of Venus by its place in the list, of context 1 or 2, without a fence.
    fn venus(&mut self, place: u8, context: u8, fields: &[u8]) -> &mut Self {
        self.add(&[0, 0, place, 0, context - 1]);
        self.add(fields).add(&[SHAPE])
    }

    fn create_context(&mut self, context: u8) -> &mut Self {
        self.venus(0, context, &[0])
    }

    /// Blob `id` of 16 KiB, exported as the fake's `name` says.
    fn create_blob(&mut self, context: u8, id: u8, name: u8) -> &mut Self {
        self.venus(5, context, &[id - 1, 0, 0, name, 0])
    }

    /// The same of one page.
    fn create_page(&mut self, context: u8, id: u8, name: u8) -> &mut Self {
        self.venus(5, context, &[id - 1, 0, 0, name, 1])
    }

    /// At page `page`.
    fn map(&mut self, id: u8, page: u8) -> &mut Self {
        self.venus(7, 1, &[id - 1, [0, 4][usize::from(page)]])
    }

    fn unmap(&mut self, id: u8) -> &mut Self {
        self.venus(8, 1, &[id - 1])
    }

    /// 64 by 64 pixels on scanout 0.
    fn scanout(&mut self, id: u8) -> &mut Self {
        self.venus(9, 1, &[0, 0, 0, 0, 0, id - 1, 0, 0, 0, 4, 0])
    }

    /// A stream of two words, with a fence on ring 1.
    fn submit(&mut self, context: u8) -> &mut Self {
        self.add(&[0, 0, 10, 3, 7, context - 1, 1]);
        self.add(&[2, 0, 1, SHAPE])
    }

    fn attach(&mut self, context: u8, id: u8) -> &mut Self {
        self.venus(3, context, &[id - 1])
    }

    /// A command of 2D by its place in the list.
    fn flat(&mut self, place: u8, fields: &[u8]) -> &mut Self {
        self.add(&[0, 200, place, 0, 0]).add(fields).add(&[SHAPE])
    }

    fn unref(&mut self, id: u8) -> &mut Self {
        self.flat(4, &[id - 1])
    }

    fn flush(&mut self, id: u8) -> &mut Self {
        self.flat(6, &[0, 0, 0, 0, id - 1])
    }

    /// The driver notifies, and the device does what it has to.
    fn rest(&mut self) -> &mut Self {
        self.add(&[120, 176])
    }

    /// The front-end's answer to a map by its place in the list, and what the device makes of it.
    fn answered(&mut self, outcome: u8) -> &mut Self {
        self.rest().add(&[251, 100, outcome]).rest()
    }

    /// What becomes of the server: 0 it ends, 1 its process for context 1 does, 200 that completes its work.
    fn server(&mut self, event: u8) -> &mut Self {
        self.add(&[251, event]);
        match event {
            0 => self,
            1 => self.add(&[0]),
            _ => self.add(&[0, 255]),
        }
        .rest()
    }
}

/// The inputs, by name.
fn seeds() -> Vec<(&'static str, Seed)> {
    const REFUSED: u8 = 4;
    const WITHDRAWN: u8 = 5;
    const LOST: u8 = 6;
    let mut maps = Seed::default();
    maps.create_context(1)
        .create_page(1, 1, 0)
        .create_page(1, 2, 2);
    maps.map(1, 0).answered(0).map(2, 1).answered(0);
    maps.unmap(1).answered(0).unref(2).answered(0);
    let mut refused = Seed::default();
    refused.create_context(1).create_blob(1, 1, 0);
    for outcome in [REFUSED, LOST, WITHDRAWN] {
        refused.map(1, 0).answered(outcome);
    }
    // A pause, after which the map is asked for again; and a reset.
    refused.add(&[225, 0]).rest().answered(0);
    refused.unmap(1).rest().add(&[228, 0]).rest();
    let mut scanouts = Seed::default();
    scanouts.add(&[200]).create_context(1).create_blob(1, 1, 1);
    scanouts.create_blob(1, 2, 2).rest();
    scanouts
        .scanout(1)
        .flush(1)
        .rest()
        .scanout(2)
        .flush(2)
        .rest();
    let mut streams = Seed::default();
    streams
        .create_context(1)
        .create_context(2)
        .create_blob(1, 1, 1);
    streams.attach(2, 1).submit(1).submit(2).rest().server(200);
    let mut ends = Seed::default();
    ends.create_context(1).create_blob(1, 1, 0).submit(1).rest();
    ends.map(1, 0).answered(0).server(1);
    // The next server, which waits for nothing.
    ends.server(0)
        .create_context(2)
        .create_blob(2, 2, 0)
        .submit(2)
        .rest();
    vec![
        ("maps", maps),
        ("maps-refused", refused),
        ("scanouts", scanouts),
        ("streams", streams),
        ("ends", ends),
    ]
}

/// Runs it but for its end.
fn begin(seed: &Seed) -> Machine {
    let mut machine = Machine::with_venus();
    let mut bytes = Bytes::new(&seed.0);
    while !bytes.is_empty() {
        machine.step(&mut bytes);
        machine.check();
    }
    machine
}

#[test]
fn commands_of_the_seeds_succeed() {
    for (name, seed) in seeds() {
        let machine = begin(&seed);
        let (contexts, blobs) = fake_render_server::population();
        let accepted = fake_render_server::accepted();
        let maps = machine.maps.count;
        let scanouts = machine.bench.scanouts();
        let found = (contexts, blobs, accepted, maps, scanouts.len());
        let expected = match name {
            "maps" => (1, 1, 0, 2, 0),
            // After a reset.
            "maps-refused" => (0, 0, 0, 1, 0),
            "scanouts" => (1, 2, 0, 0, 1),
            "streams" => (2, 1, 2, 0, 0),
            "ends" => (1, 1, 1, 1, 0),
            other => panic!("{other}"),
        };
        assert_eq!(
            found, expected,
            "{name}: contexts, blobs, streams, maps, scanouts"
        );
        drop(machine);
        control_venus(&seed.0);
    }
}

#[test]
fn seeds_are_in_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/control_venus");
    for (name, seed) in seeds() {
        let path = folder.join(format!("seed-{name}"));
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            fs::write(&path, &seed.0).expect("is written");
        }
        let kept = fs::read(&path).expect("a seed; UPDATE_SEEDS=1 writes it");
        assert_eq!(kept, seed.0, "{name}: UPDATE_SEEDS=1 writes it");
    }
}
