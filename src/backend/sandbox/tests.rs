//! The sandbox closed around a process of the tests' own, which then does what is rare.
