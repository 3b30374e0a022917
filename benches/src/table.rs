// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables, in Markdown that can be read as it is.

use std::fmt::Write as _;

/// The table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this heading.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// Adds a row; what it has too few is `-`.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// It, with a line's end.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cell = |row: &Vec<String>, n: usize| row.get(n).map_or("-", String::as_str).to_owned();
        let width = |n| {
            self.rows
                .iter()
                .map(|row| cell(row, n).chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or(0).max(3)).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (n, &width) in widths.iter().enumerate() {
                // Names to the left, numbers to the right.
                let _ = match n {
                    0 => write!(text, "| {:<width$} ", cell(row, n)),
                    _ => write!(text, "| {:>width$} ", cell(row, n)),
                };
            }
            text.push_str("|\n");
            if index == 0 {
                for (n, &width) in widths.iter().enumerate() {
                    let end = if n == 0 { "-" } else { ":" };
                    let _ = write!(text, "| {}{end} ", "-".repeat(width - 1));
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// A number with three digits that mean something.
pub(crate) fn number(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".into(),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["what", "µs"]);
        table.row(vec!["a".into(), "1.00".into()]);
        table.row(vec!["much longer".into()]);
        let expected = "\
| what        |   µs |
| ----------- | ---: |
| a           | 1.00 |
| much longer |    - |
";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [0.123, 1.2, 12.34, 123.4, f64::NAN].map(number),
            ["0.12", "1.20", "12.3", "123", "-"]
        );
    }
}
