//! Where a command's answers go: tables and sentences for people, JSON for programs; colour only where
//! a person looks.

use crate::written::Clock;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle};
use serde_json::Value;
use std::io::{self, Write};

/// Answers on one stream, notices on the other.
pub struct Output<'a> {
    /// Standard output, or a test's buffer.
    pub answers: &'a mut (dyn Write + Send),
    /// Standard error, or a test's buffer.
    pub notices: &'a mut (dyn Write + Send),
    /// Answers are JSON.
    pub json: bool,
    /// Colours are wanted.
    pub colour: bool,
    /// Columns of the terminal, where answers go to one.
    pub width: Option<u16>,
    /// Now, and the zone that times are shown in.
    pub clock: Clock,
}

/// What a text's colour means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Look at it.
    Warn,
    /// Not as it should be.
    Bad,
    /// In the background.
    Faint,
    /// In the foreground.
    Strong,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
            Self::Strong => "\x1b[1m",
        }
    }
}

impl Output<'_> {
    /// One line of an answer.
    pub fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.answers, "{}", text.as_ref())
    }

    /// One line beside the answer, for people.
    pub fn notice(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        let text = self.paint(Tone::Faint, text.as_ref());
        writeln!(self.notices, "{text}")
    }

    /// A message as JSON over several lines.
    pub fn value(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.answers, "{value:#}")
    }

    /// A message as JSON on one line.
    pub fn value_line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.answers, "{value}")?;
        self.answers.flush()
    }

    /// A text in a tone, where colours are wanted.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colour && tone != Tone::Plain {
            format!("{}{text}\x1b[0m", tone.code())
        } else {
            text.to_owned()
        }
    }

    /// A table.
    pub fn sheet(&mut self, sheet: &Sheet) -> io::Result<()> {
        let shown = sheet.draw(self.colour, self.width);
        self.answers.write_all(shown.as_bytes())
    }

    /// Names and texts below each other: the particulars of one thing.
    pub fn particulars(&mut self, rows: &[(&str, String)]) -> io::Result<()> {
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, text) in rows.iter().filter(|(_, text)| !text.is_empty()) {
            let name = self.paint(Tone::Faint, &format!("{name:width$}"));
            writeln!(self.answers, "  {name}  {text}")?;
        }
        Ok(())
    }
}

/// A table to be: a head, rows, and which columns are numbers.
pub struct Sheet {
    head: Vec<&'static str>,
    numbers: Vec<bool>,
    rows: Vec<Vec<(Tone, String)>>,
}

/// One line under the head, no other lines: easy on the eye, easy to cut with other tools.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

impl Sheet {
    /// A table with these columns. Numbers, right-aligned, are those that begin with '>'.
    pub fn new(columns: &[&'static str]) -> Self {
        Self {
            head: columns.iter().map(|name| name.trim_start_matches('>')).collect(),
            numbers: columns.iter().map(|name| name.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of plain texts.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|text| (Tone::Plain, text.into())).collect());
    }

    /// Adds a row of texts with tones.
    pub fn toned(&mut self, cells: Vec<(Tone, String)>) {
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn draw(&self, colour: bool, width: Option<u16>) -> String {
        let mut table = Table::new();
        table.load_style(STYLE).force_no_tty();
        if colour {
            table.enforce_styling();
        }
        match width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        table.set_header(self.head.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
        for row in &self.rows {
            table.add_row(row.iter().map(|(tone, text)| cell(*tone, text)));
        }
        for (index, number) in self.numbers.iter().enumerate() {
            if let Some(column) = table.column_mut(index).filter(|_| *number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt() + "\n"
    }
}

fn cell(tone: Tone, text: &str) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Faint => cell.add_attribute(Attribute::Dim),
        Tone::Strong => cell.add_attribute(Attribute::Bold),
    }
}
