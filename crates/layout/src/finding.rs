// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What breaks a rule, and where.

use std::fmt;
use std::path::PathBuf;

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Modules beside each other import each other in a circle.
    Circle,
    /// A module imports from one that lies above it in the table of layers.
    Up,
    /// A module is missing in the table of layers, or the table names one that is not there.
    Table,
    /// A file is too long.
    Length,
    /// A type's methods are spread over several files.
    Impl,
    /// `super::super`.
    Super,
    /// A module has the name of a crate.
    Name,
    /// `#[path]` takes a file from another folder.
    Path,
    /// A document quotes what is not there.
    Quote,
    /// A picture of imports in a document is not that of the code.
    Picture,
    /// A file of code does not begin with its licences.
    License,
    /// A document has commands of which nothing says which test runs them.
    Command,
    /// A file is of another version than the product, or of another date.
    Release,
    /// An exception that is not needed.
    Exception,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Circle => "circle",
            Self::Up => "up",
            Self::Table => "table",
            Self::Length => "length",
            Self::Impl => "impl",
            Self::Super => "super",
            Self::Name => "name",
            Self::Path => "path",
            Self::Quote => "quote",
            Self::Picture => "picture",
            Self::License => "license",
            Self::Command => "command",
            Self::Release => "release",
            Self::Exception => "exception",
        };
        f.pad(name)
    }
}

/// A place where a rule is broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What an exception has to name: a module, a type or a file.
    pub key: String,
    /// The file, and the line from 1 (0 for the whole file).
    pub place: (PathBuf, usize),
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = &self.place;
        let file = file.display();
        match line {
            0 => write!(f, "{file}: ")?,
            line => write!(f, "{file}:{line}: ")?,
        }
        write!(f, "[{}] {}", self.rule, self.message)
    }
}
