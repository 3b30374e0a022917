// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs points against one program.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conventions::{Capabilities, DeviceType};
use frontend::features::PROTOCOL_FEATURES;
use frontend::{FrontendReq, VhostUserProtocolFeatures as Protocol};

use crate::outcome::{Flaw, Outcome, fails};
use crate::point::{Level, Point};
use crate::target::{FILE, Target};
use crate::trial::{Facts, Form, Trial};

/// The descriptor under which a program finds its socket when it is probed.
const PROBED_FD: i32 = 7;

/// So many starts of the program have to fit in a point's time.
const STARTS: u32 = 30;

/// A program that points are run against.
#[derive(Debug)]
pub struct Check {
    target: Arc<Target>,
    facts: Arc<Facts>,
    limit: Duration,
    start_error: Option<String>,
    own_error: Option<String>,
}

/// What a point found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The point.
    pub point: &'static Point,
    /// What it found.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Whether there is no verdict where one is needed: a required point is unfinished, or the check itself failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self.outcome {
            Outcome::CheckFailed(_) => true,
            Outcome::Unfinished(_) => self.point.level == Level::Required,
            Outcome::Holds(_) | Outcome::Fails(_) | Outcome::NotTried(_) => false,
        }
    }
}

impl Check {
    /// Asks the program for its capabilities, and finds how it can be reached. No point takes longer than `limit`,
    /// unless the program starts so slowly that 30 starts take longer: then these, and ten times the limit at most.
    #[must_use]
    pub fn new(mut target: Target, limit: Duration) -> Self {
        let told = match executable(&target.program) {
            Ok(()) => capabilities(&target, limit),
            Err(error) => fails(format!("starting {}: {error}", target.program.display())),
        };
        let (capabilities, start_error, mut own_error) = match told {
            Ok(capabilities) => (capabilities, None, None),
            Err(Flaw::Unfinished(why) | Flaw::CheckFailed(why)) => (None, None, Some(why)),
            Err(Flaw::Fails(error) | Flaw::NotTried(error)) => (None, Some(error), None),
        };
        let mut facts = Facts {
            capabilities,
            ..Facts::default()
        };
        let told = facts.capabilities.as_ref();
        let told = told.and_then(|told| told.device_type.parse().ok());
        facts.device_type = target.device_type.or(told).or(target.type_by_name());
        if target.args.is_empty() && facts.device_type == Some(DeviceType::Block) {
            // The convention's own option.
            target.args.push(format!("--blk-file={FILE}").into());
        }
        let target = Arc::new(target);
        let forms: &[Form] = match target.places_socket() {
            true => &[Form::Arguments],
            false => &[
                Form::Path,
                Form::Connected(PROBED_FD),
                Form::Listening(PROBED_FD),
            ],
        };
        let mut start = Duration::ZERO;
        for form in forms {
            match probe(&target, *form, limit) {
                Ok(probed) => {
                    facts.form = Some(*form);
                    (facts.features, facts.protocol_features) =
                        (probed.features, probed.protocol_features);
                    start = probed.start;
                    break;
                }
                Err(Flaw::Unfinished(why) | Flaw::CheckFailed(why)) => {
                    own_error.get_or_insert(why);
                }
                // The first form is the usual one: what is wrong with it tells most.
                Err(Flaw::Fails(why) | Flaw::NotTried(why)) if facts.unserved.is_empty() => {
                    facts.unserved = why;
                }
                Err(_) => {}
            }
        }
        if facts.form.is_some() {
            own_error = None;
        }
        Self {
            target,
            facts: Arc::new(facts),
            // Some points start the program again and again.
            limit: limit.max((STARTS * start).min(10 * limit)),
            start_error,
            own_error,
        }
    }

    /// Why the check itself failed, as without memory or room on the disk, before it knew how the program is reached.
    #[must_use]
    pub fn own_error(&self) -> Option<&str> {
        self.own_error.as_deref()
    }

    /// Why the program cannot even be started, as one that is not executable.
    #[must_use]
    pub fn start_error(&self) -> Option<&str> {
        self.start_error.as_deref()
    }

    /// Why no front-end is served, if none is: all points about the protocol and the device are not tried then.
    #[must_use]
    pub fn unserved(&self) -> Option<&str> {
        match self.facts.form {
            Some(_) => None,
            None => Some(&self.facts.unserved),
        }
    }

    /// The type of the device that points are run for, if it is known.
    #[must_use]
    pub fn device_type(&self) -> Option<DeviceType> {
        self.facts.device_type
    }

    /// Runs a point.
    #[must_use]
    pub fn run(&self, point: &'static Point) -> Report {
        let begin = Instant::now();
        let outcome = self.outcome(point);
        Report {
            point,
            outcome,
            took: begin.elapsed(),
        }
    }

    fn outcome(&self, point: &Point) -> Outcome {
        if !point.types.is_empty() {
            match self.facts.device_type {
                Some(of) if point.types.contains(&of) => {}
                Some(of) => {
                    return Outcome::NotTried(format!("it is about other devices than {of}"));
                }
                None => return Outcome::NotTried("the type of the device is not known".into()),
            }
        }
        let missing = point.protocol_features - self.facts.protocol_features;
        if self.facts.form.is_some() && !missing.is_empty() {
            let names: Vec<_> = missing.iter_names().map(|(name, _)| name).collect();
            return Outcome::NotTried(format!("not offered: {}", names.join(", ")));
        }
        let trial = match Trial::new(self.target.clone(), self.facts.clone(), self.limit) {
            Ok(trial) => trial,
            Err(error) => return Outcome::CheckFailed(format!("no temporary folder: {error}")),
        };
        let (seen, late) = trial.guarded(|| (point.run)(&trial));
        if late {
            return Outcome::Fails(with_story(
                "it keeps the check beyond the limit".into(),
                &trial,
            ));
        }
        match seen {
            Ok(seen) => Outcome::Holds(trial.with_statuses(seen)),
            Err(Flaw::NotTried(why)) => Outcome::NotTried(why),
            Err(Flaw::Unfinished(why)) => Outcome::Unfinished(why),
            Err(Flaw::CheckFailed(why)) => Outcome::CheckFailed(why),
            Err(Flaw::Fails(seen)) => Outcome::Fails(with_story(seen, &trial)),
        }
    }
}

/// What was seen, with how the last program ended and what it said.
fn with_story(seen: String, trial: &Trial) -> String {
    let story = trial.story.lock().unwrap_or_else(|e| e.into_inner());
    match story.last() {
        Some(told) => format!("{seen} ({told})"),
        None => seen,
    }
}

/// What the kernel says of a program that is none. The C library would have a shell run it, which systemd and libvirt do
/// not.
fn executable(program: &Path) -> io::Result<()> {
    let mut head = [0; 4];
    // What cannot be read may be executed all the same, and what is wrong otherwise is told at the start.
    if File::open(program)
        .and_then(|mut file| file.read(&mut head))
        .is_err()
    {
        return Ok(());
    }
    let others = fs::read_dir("/proc/sys/fs/binfmt_misc")
        .into_iter()
        .flatten();
    let others = others.flatten().any(|entry| {
        let name = entry.file_name();
        name != "register" && name != "status"
    });
    match head.starts_with(b"#!") || head.starts_with(b"\x7fELF") || others {
        true => Ok(()),
        false => Err(rustix::io::Errno::NOEXEC.into()),
    }
}

fn capabilities(target: &Target, limit: Duration) -> Result<Option<Capabilities>, Flaw> {
    let trial = Trial::new(Arc::new(target.clone()), Arc::default(), limit)?;
    let mut program = trial.bare(["--print-capabilities"]).spawn()?;
    Ok(match program.wait_end(&trial.deadline)? {
        Some(_) => Capabilities::parse(&program.stdout_bytes()).ok(),
        None => None,
    })
}

/// What a first front-end was offered.
struct Probed {
    features: u64,
    protocol_features: Protocol,
    /// How long the program took until it answered.
    start: Duration,
}

/// Whether a front-end is served in this form, and what it is offered.
fn probe(target: &Arc<Target>, form: Form, limit: Duration) -> Result<Probed, Flaw> {
    let trial = Trial::new(target.clone(), Arc::default(), limit)?;
    let begin = Instant::now();
    let tried = || -> Result<Probed, Flaw> {
        let mut served = trial.serve_in(form)?;
        let features = served.started.first_answer(&mut served.session)?;
        let start = begin.elapsed();
        let mut protocol_features = Protocol::empty();
        if features & PROTOCOL_FEATURES != 0 {
            // A backend that does not answer is one for a point, not for the probe.
            let bits = served.session.get_u64(FrontendReq::GET_PROTOCOL_FEATURES);
            protocol_features = Protocol::from_bits_truncate(bits.unwrap_or_default());
        }
        Ok(Probed {
            features,
            protocol_features,
            start,
        })
    };
    tried().map_err(|flaw| match flaw {
        Flaw::Fails(seen) | Flaw::NotTried(seen) => Flaw::Fails(with_story(seen, &trial)),
        flaw => flaw,
    })
}
