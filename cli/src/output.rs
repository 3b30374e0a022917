//! Results on standard output: a table for people, JSON for programs, both as systemd's tools do it.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{
    Attribute, Cell as TableCell, CellAlignment, Color, ColumnConstraint, ContentArrangement,
    Table, presets,
};
use serde::Serialize;

use crate::args::{JsonMode, OutputArgs};

/// A line of a table.
pub trait Row {
    /// The names of the columns.
    const HEADER: &[&str];

    /// As many cells as the header has names.
    fn cells(&self) -> Vec<Cell>;
}

/// One value in a table.
#[derive(Debug)]
pub struct Cell {
    text: String,
    emphasis: Emphasis,
    right: bool,
}

/// How a value stands out, on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    None,
    Good,
    Bad,
    Faint,
}

impl Cell {
    /// A value; one that is empty is shown as "-".
    pub fn new(value: impl Display) -> Self {
        let text = printable(&value.to_string()).into_owned();
        let text = if text.is_empty() {
            "-".to_owned()
        } else {
            text
        };
        Self {
            text,
            emphasis: Emphasis::None,
            right: false,
        }
    }

    /// A value that may be missing.
    pub fn optional(value: Option<impl Display>) -> Self {
        value.map_or_else(|| Self::new(""), Self::new)
    }

    /// Lets it stand out.
    pub fn emphasis(self, emphasis: Emphasis) -> Self {
        Self { emphasis, ..self }
    }

    /// Aligns its column to the right, as numbers are.
    pub fn right(self) -> Self {
        Self {
            right: true,
            ..self
        }
    }

    fn styled(self) -> TableCell {
        let cell = TableCell::new(self.text);
        match self.emphasis {
            Emphasis::None => cell,
            Emphasis::Good => cell.fg(Color::Green),
            Emphasis::Bad => cell.fg(Color::Red).add_attribute(Attribute::Bold),
            Emphasis::Faint => cell.add_attribute(Attribute::Dim),
        }
    }
}

/// A device can call itself anything: what could steer a terminal is shown as an escape.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            // Writing to a string does not fail.
            let _ = write!(safe, "\\x{:02x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Where and how to show results.
#[derive(Debug)]
pub struct Output {
    json: Option<Json>,
    legend: bool,
    width: Width,
    styled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Json {
    Pretty,
    Short,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// Of the terminal, whatever it is.
    Terminal,
    /// As COLUMNS says.
    Columns(u16),
    /// As wide as the content: a file or a pipe.
    Unlimited,
}

/// The width of a terminal that does not tell, as systemd's tools assume it.
const FALLBACK_COLUMNS: u16 = 80;

impl Output {
    /// As the command line and the environment ask for.
    pub fn new(args: &OutputArgs) -> Self {
        let terminal = io::stdout().is_terminal();
        let variable = |name| std::env::var(name).ok();
        Self {
            json: json_mode(args, terminal),
            legend: !args.no_legend && !args.quiet,
            width: width(variable("COLUMNS").as_deref(), terminal),
            styled: styled(
                variable("SYSTEMD_COLORS").as_deref(),
                variable("NO_COLOR").as_deref(),
                variable("TERM").as_deref(),
                terminal,
            ),
        }
    }

    /// Whether the result is for a program.
    pub fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// Whether headers and footers are shown.
    pub fn legend(&self) -> bool {
        self.legend
    }

    /// Shows the rows as a JSON array if JSON was asked for, and says whether it was.
    pub fn json<R: Serialize>(&self, rows: &[R]) -> io::Result<bool> {
        let text = match self.json {
            None => return Ok(false),
            Some(Json::Short) => serde_json::to_string(rows)?,
            Some(Json::Pretty) => {
                let mut text = Vec::new();
                let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
                rows.serialize(&mut serde_json::Serializer::with_formatter(
                    &mut text, indent,
                ))?;
                String::from_utf8(text).map_err(io::Error::other)?
            }
        };
        print(&text)?;
        Ok(true)
    }

    /// Shows the rows as a table; nothing if there are none.
    pub fn table<R: Row>(&self, rows: &[R]) -> io::Result<()> {
        if rows.is_empty() {
            Ok(())
        } else {
            print(&self.render(rows))
        }
    }

    /// Shows lines of text as they are, but for what could steer a terminal.
    pub fn lines(&self, lines: &[impl AsRef<str>]) -> io::Result<()> {
        lines
            .iter()
            .try_for_each(|line| print(&printable(line.as_ref())))
    }

    /// Sets two tables apart.
    pub fn blank(&self) -> io::Result<()> {
        print("")
    }

    /// Says how many there were, below their table.
    pub fn count(&self, count: usize, noun: &str) -> io::Result<()> {
        match (self.legend, count) {
            (false, _) => Ok(()),
            (true, 0) => print(&format!("No {noun}s.")),
            (true, 1) => print(&format!("\n1 {noun} listed.")),
            (true, _) => print(&format!("\n{count} {noun}s listed.")),
        }
    }

    fn render<R: Row>(&self, rows: &[R]) -> String {
        let mut table = Table::new();
        // A value is cut at any character, not only between words: no value has this one in it.
        table.load_style(presets::NOTHING).set_delimiter('\0');
        table.set_content_arrangement(match self.width {
            Width::Unlimited => ContentArrangement::Disabled,
            Width::Terminal | Width::Columns(_) => ContentArrangement::Dynamic,
        });
        match self.width {
            Width::Columns(columns) => {
                table.set_width(columns);
            }
            // A serial line does not know its width.
            Width::Terminal if matches!(table.width(), None | Some(0)) => {
                table.set_width(FALLBACK_COLUMNS);
            }
            Width::Terminal | Width::Unlimited => {}
        }
        if self.styled {
            table.enforce_styling();
        } else if self.width != Width::Terminal {
            table.force_no_tty();
        }
        if self.legend {
            let names = R::HEADER.iter().map(|name| {
                let cell = TableCell::new(name);
                if self.styled {
                    cell.add_attribute(Attribute::Underlined)
                } else {
                    cell
                }
            });
            table.set_header(single_line(names));
        }
        let mut numeric = Vec::new();
        for row in rows {
            let cells = row.cells();
            numeric = cells.iter().map(|cell| cell.right).collect();
            table.add_row(single_line(cells.into_iter().map(Cell::styled)));
        }
        let last = R::HEADER.len().saturating_sub(1);
        for ((index, column), numeric) in table.column_iter_mut().enumerate().zip(numeric) {
            column.set_padding((0, if index == last { 0 } else { 1 }));
            if numeric {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        // The first column tells which line is which: the others give way first, where there is room.
        let (width, widest) = (table.width(), table.column_max_content_widths());
        if let (Some(width), Some(&widest), Some(first)) =
            (width, widest.first(), table.column_mut(0))
            && widest < width / 2
        {
            first.set_constraint(ColumnConstraint::ContentWidth);
        }
        table.trim_fmt()
    }
}

/// What does not fit is cut off, not wrapped: a line stays a line.
fn single_line(cells: impl Iterator<Item = TableCell>) -> comfy_table::Row {
    let mut line = comfy_table::Row::from(cells);
    line.max_height(1);
    line
}

fn json_mode(args: &OutputArgs, terminal: bool) -> Option<Json> {
    match args.json {
        Some(JsonMode::Pretty) => Some(Json::Pretty),
        Some(JsonMode::Short) => Some(Json::Short),
        Some(JsonMode::Off) => None,
        None if args.auto_json => Some(if terminal { Json::Pretty } else { Json::Short }),
        None => None,
    }
}

fn width(columns: Option<&str>, terminal: bool) -> Width {
    match columns.and_then(|columns| columns.parse().ok()) {
        Some(columns @ 1..) => Width::Columns(columns),
        _ if terminal => Width::Terminal,
        _ => Width::Unlimited,
    }
}

/// Colour is for terminals that can; systemd's variable overrides that either way.
fn styled(
    systemd: Option<&str>,
    no_color: Option<&str>,
    term: Option<&str>,
    terminal: bool,
) -> bool {
    match systemd {
        Some("0" | "no" | "n" | "false" | "f" | "off") => false,
        Some("1" | "yes" | "y" | "true" | "t" | "on" | "16" | "256" | "24bit") => true,
        _ => terminal && term != Some("dumb") && no_color.is_none_or(str::is_empty),
    }
}

/// Writes a line. Nobody left to read it, as in `vhostctl | head -1`, is not an error.
fn print(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair(&'static str, Option<u32>);

    impl Row for Pair {
        const HEADER: &[&str] = &["NAME", "PID"];

        fn cells(&self) -> Vec<Cell> {
            vec![Cell::new(self.0), Cell::optional(self.1).right()]
        }
    }

    const PAIRS: &[Pair] = &[Pair("a rather long name", Some(17)), Pair("", None)];

    fn plain(width: Width, legend: bool) -> Output {
        Output {
            json: None,
            legend,
            width,
            styled: false,
        }
    }

    #[test]
    fn a_table_is_as_wide_as_it_has_to_be() {
        let text = plain(Width::Unlimited, true).render(PAIRS);
        assert_eq!(
            text,
            "NAME               PID\na rather long name  17\n-                    -"
        );
    }

    #[test]
    fn without_legend_only_rows_remain() {
        let text = plain(Width::Unlimited, false).render(PAIRS);
        assert_eq!(text, "a rather long name 17\n-                   -");
    }

    #[test]
    fn a_narrow_terminal_cuts_and_never_wraps() {
        for columns in 1..24 {
            let text = plain(Width::Columns(columns), true).render(PAIRS);
            assert_eq!(text.lines().count(), 3, "{columns}: {text}");
        }
        let text = plain(Width::Columns(16), true).render(PAIRS);
        assert!(
            text.lines().all(|line| line.chars().count() <= 16),
            "{text}"
        );
        assert!(text.contains('…'), "{text}");
    }

    #[test]
    fn styles_are_for_those_who_want_them() {
        let styled = Output {
            styled: true,
            ..plain(Width::Unlimited, true)
        }
        .render(PAIRS);
        assert!(styled.contains("\x1b["), "{styled:?}");
        assert!(!plain(Width::Unlimited, true).render(PAIRS).contains('\x1b'));
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(Cell::new("a\x1b[2Jb\n\u{9b}c").text, r"a\x1b[2Jb\x0a\x9bc");
        assert_eq!(Cell::new("Tästatur").text, "Tästatur");
    }

    #[test]
    fn columns_and_terminal_decide_the_width() {
        assert_eq!(width(Some("100"), false), Width::Columns(100));
        assert_eq!(width(Some("100"), true), Width::Columns(100));
        assert_eq!(width(Some("0"), true), Width::Terminal);
        assert_eq!(width(Some("wide"), false), Width::Unlimited);
        assert_eq!(width(None, true), Width::Terminal);
        assert_eq!(width(None, false), Width::Unlimited);
    }

    #[test]
    fn colour_follows_terminal_and_environment() {
        assert!(styled(None, None, Some("xterm"), true));
        assert!(styled(None, Some(""), None, true));
        assert!(!styled(None, None, Some("xterm"), false));
        assert!(!styled(None, None, Some("dumb"), true));
        assert!(!styled(None, Some("1"), Some("xterm"), true));
        assert!(styled(Some("1"), Some("1"), None, false));
        assert!(!styled(Some("0"), None, Some("xterm"), true));
    }

    #[test]
    fn j_is_pretty_on_a_terminal_only() {
        let args = |json, auto_json| OutputArgs {
            json,
            auto_json,
            ..OutputArgs::default()
        };
        assert_eq!(json_mode(&args(None, true), true), Some(Json::Pretty));
        assert_eq!(json_mode(&args(None, true), false), Some(Json::Short));
        assert_eq!(
            json_mode(&args(Some(JsonMode::Pretty), false), false),
            Some(Json::Pretty)
        );
        assert_eq!(json_mode(&args(Some(JsonMode::Off), false), true), None);
        assert_eq!(json_mode(&args(None, false), true), None);
    }
}
