// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Results on standard output, in the format of systemd's tools: a table, or JSON for programs.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{
    Attribute, Cell as TableCell, CellAlignment, Color, ColumnConstraint, ContentArrangement,
    Table, presets,
};
use conventions::{is_unprintable, printable, printable_lines};
use serde::Serialize;

pub(crate) use glyphs::Glyph;
pub(crate) use options::{JsonMode, OutputArgs};

mod glyphs;
mod options;

/// A line of a table.
pub(crate) trait Row {
    /// The names of the columns.
    const HEADER: &[&str];

    /// As many cells as the header has names.
    fn cells(&self) -> Vec<Cell>;
}

/// One value in a table.
#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    emphasis: Emphasis,
    right: bool,
}

/// The emphasis of a value, on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Emphasis {
    None,
    Good,
    Bad,
    Faint,
    Strong,
}

impl Cell {
    /// A value; one that is empty is shown as "-".
    pub(crate) fn new(value: impl Display) -> Self {
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
    pub(crate) fn optional(value: Option<impl Display>) -> Self {
        value.map_or_else(|| Self::new(""), Self::new)
    }

    /// Sets the emphasis.
    pub(crate) fn emphasis(self, emphasis: Emphasis) -> Self {
        Self { emphasis, ..self }
    }

    /// Aligns its column to the right, as numbers are.
    pub(crate) fn right(self) -> Self {
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
            Emphasis::Strong => cell.add_attribute(Attribute::Bold),
        }
    }
}

/// A styled text that is safe on a terminal: unprintable characters are escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Painted(String);

/// Where and how to show results.
#[derive(Debug)]
pub(crate) struct Output {
    json: Option<Json>,
    /// Whether every event of a stream is to be on more than one line.
    json_events: Json,
    legend: bool,
    quiet: bool,
    pager: bool,
    width: Width,
    styled: bool,
    utf8: bool,
}

/// What JSON looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Pretty,
    Short,
}

impl Json {
    fn text<T: Serialize + ?Sized>(self, value: &T) -> io::Result<String> {
        let text = match self {
            Self::Short => serde_json::to_string(value)?,
            Self::Pretty => {
                let mut text = Vec::new();
                let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
                value.serialize(&mut serde_json::Serializer::with_formatter(
                    &mut text, indent,
                ))?;
                String::from_utf8(text).map_err(io::Error::other)?
            }
        };
        Ok(escaped_json(text))
    }
}

/// Escapes unprintable characters beyond C0, which JSON allows. They occur only in strings.
fn escaped_json(text: String) -> String {
    let escape = |c: char| is_unprintable(c) && !matches!(c, '\n' | '\t');
    if !text.contains(escape) {
        return text;
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if escape(c) {
            // All of them have four digits.
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// The width of the terminal.
    Terminal,
    /// The width in COLUMNS.
    Columns(u16),
    /// No limit: a file or a pipe.
    Unlimited,
}

/// The width of a terminal of unknown size, as in systemd's tools.
const FALLBACK_COLUMNS: u16 = 80;

/// Lines of styled parts, which are written by one system call.
#[derive(Debug, Default)]
pub(crate) struct Block(Vec<String>);

impl Block {
    /// Adds a line of styled parts.
    pub(crate) fn line(&mut self, parts: &[Painted]) {
        let parts: Vec<_> = parts.iter().map(|Painted(text)| text.as_str()).collect();
        self.0.push(parts.concat());
    }

    /// Adds an empty line.
    pub(crate) fn blank(&mut self) {
        self.0.push(String::new());
    }

    /// Shows the lines; false if the reader is gone.
    pub(crate) fn show(self) -> io::Result<bool> {
        write_line(&self.0.join("\n"))
    }
}

impl Output {
    /// By the command line and the environment.
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let terminal = io::stdout().is_terminal();
        let variable = |name: &str| std::env::var(name).ok();
        Self {
            json: json_mode(args, terminal),
            json_events: match args.json {
                Some(JsonMode::Pretty) => Json::Pretty,
                _ => Json::Short,
            },
            legend: !args.no_legend && !args.quiet,
            quiet: args.quiet,
            pager: !args.no_pager,
            width: width(variable("COLUMNS").as_deref(), terminal),
            styled: styled(
                variable("SYSTEMD_COLORS").as_deref(),
                variable("NO_COLOR").as_deref(),
                variable("TERM").as_deref(),
                terminal,
            ),
            utf8: glyphs::is_utf8(variable),
        }
    }

    /// A glyph, or its ASCII replacement in other locales than UTF-8.
    pub(crate) fn glyph(&self, glyph: Glyph) -> &'static str {
        glyph.text(self.utf8)
    }

    /// Whether JSON is requested.
    pub(crate) fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// The form of JSON, if JSON is requested.
    pub(crate) fn json_mode(&self) -> Option<Json> {
        self.json
    }

    /// Whether a pager may be used.
    pub(crate) fn pager(&self) -> bool {
        self.pager
    }

    /// Whether only results are shown.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether headers and footers are shown.
    pub(crate) fn legend(&self) -> bool {
        self.legend
    }

    /// Shows the rows as a JSON array if JSON is requested; returns whether it is.
    pub(crate) fn json<R: Serialize>(&self, rows: &[R]) -> io::Result<bool> {
        let Some(json) = self.json else {
            return Ok(false);
        };
        let text = json.text(rows)?;
        write_line(&text)?;
        Ok(true)
    }

    /// Shows one event of a stream as JSON; false if the reader is gone.
    pub(crate) fn json_event<E: Serialize>(&self, event: &E) -> io::Result<bool> {
        write_line(&self.json_events.text(event)?)
    }

    /// Shows a line of styled parts; false if the reader is gone.
    pub(crate) fn line(&self, parts: &[Painted]) -> io::Result<bool> {
        let parts: Vec<_> = parts.iter().map(|Painted(text)| text.as_str()).collect();
        write_line(&parts.concat())
    }

    /// Lines that are shown at once.
    pub(crate) fn block(&self) -> Block {
        Block::default()
    }

    /// Writes a text for a program: escaped only on a terminal.
    pub(crate) fn data(&self, text: &str) -> io::Result<()> {
        if io::stdout().is_terminal() {
            print(text)
        } else {
            write_line(text).map(drop)
        }
    }

    /// Shows a message that is not a result, on standard error.
    pub(crate) fn hint(&self, text: &str) {
        if !self.quiet {
            complain(text);
        }
    }

    /// A text in the colours of systemd's tools, if colours are on.
    pub(crate) fn paint(&self, text: impl Display, emphasis: Emphasis) -> Painted {
        let text = text.to_string();
        let text = printable(&text);
        let code = match emphasis {
            Emphasis::Good => "0;1;32",
            Emphasis::Bad => "0;1;31",
            Emphasis::Faint => "0;90",
            Emphasis::Strong => "0;1",
            Emphasis::None => "",
        };
        Painted(if self.styled && !code.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.into_owned()
        })
    }

    /// A text without a style.
    pub(crate) fn plain(&self, text: impl Display) -> Painted {
        self.paint(text, Emphasis::None)
    }

    /// A line, truncated to the width.
    pub(crate) fn fit(&self, text: &str) -> String {
        let text = printable(text);
        let columns = match self.width {
            Width::Unlimited => return text.into_owned(),
            Width::Columns(columns) => columns,
            Width::Terminal => match Table::new().width() {
                None | Some(0) => FALLBACK_COLUMNS,
                Some(columns) => columns,
            },
        };
        let room = usize::from(columns);
        if text.chars().count() <= room {
            return text.into_owned();
        }
        let ellipsis = self.glyph(Glyph::Ellipsis);
        let room = room.saturating_sub(ellipsis.chars().count());
        text.chars().take(room).chain(ellipsis.chars()).collect()
    }

    /// Shows the rows as a table; nothing if there are none.
    pub(crate) fn table<R: Row>(&self, rows: &[R]) -> io::Result<()> {
        if rows.is_empty() {
            Ok(())
        } else {
            // The cells are already escaped and styled.
            write_line(&self.render(rows)).map(drop)
        }
    }

    /// Shows texts of one line each.
    pub(crate) fn lines(&self, lines: &[impl AsRef<str>]) -> io::Result<()> {
        lines
            .iter()
            .try_for_each(|line| print(&printable(line.as_ref())))
    }

    /// Shows a blank line.
    pub(crate) fn blank(&self) -> io::Result<()> {
        print("")
    }

    /// Shows the number of rows below their table.
    pub(crate) fn count(&self, count: usize, noun: &str) -> io::Result<()> {
        match (self.legend, count) {
            (false, _) => Ok(()),
            (true, 0) => print(&format!("No {noun}s.")),
            (true, 1) => print(&format!("\n1 {noun} listed.")),
            (true, _) => print(&format!("\n{count} {noun}s listed.")),
        }
    }

    fn render<R: Row>(&self, rows: &[R]) -> String {
        let mut table = Table::new();
        // Truncates at any character, not only between words: no value contains this delimiter.
        table.load_preset(presets::NOTHING).set_delimiter('\0');
        table.set_truncation_indicator(self.glyph(Glyph::Ellipsis));
        table.set_content_arrangement(match self.width {
            Width::Unlimited => ContentArrangement::Disabled,
            Width::Terminal | Width::Columns(_) => ContentArrangement::Dynamic,
        });
        match self.width {
            Width::Columns(columns) => {
                table.set_width(columns);
            }
            // The width of a serial line is unknown.
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
        // The first column identifies the row: the others are truncated first.
        let (width, widest) = (table.width(), table.column_max_content_widths());
        let is_narrow = width
            .zip(widest.first())
            .is_some_and(|(width, widest)| *widest < width / 2);
        if let Some(first) = table.column_mut(0).filter(|_| is_narrow) {
            first.set_constraint(ColumnConstraint::ContentWidth);
        }
        table.trim_fmt()
    }
}

/// Truncates rows instead of wrapping them.
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

/// Whether colours are on: on terminals, unless a variable says otherwise.
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

/// Shows a message on standard error; a closed one is no error.
pub(crate) fn complain(text: impl Display) {
    let text = text.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", printable_lines(&text));
}

/// Asks on standard error, and reads the answer.
pub(crate) fn ask(question: impl Display) -> io::Result<String> {
    let text = question.to_string();
    let mut stderr = io::stderr().lock();
    write!(stderr, "{} ", printable_lines(&text))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer)
}

/// Shows a text. A closed output, as in `vhostctl | head -1`, is no error.
fn print(text: &str) -> io::Result<()> {
    write_line(&printable_lines(text)).map(drop)
}

/// Writes a line that is already escaped; false if the reader is gone.
fn write_line(text: &str) -> io::Result<bool> {
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
