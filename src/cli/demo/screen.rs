//! What a person reads: steps, labelled lines within 80 columns, and checks that speak up when they do not hold.
//!
//! Colour is left out where standard output is no terminal, or `NO_COLOR` is set. A reader that went away is no error.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::Write;

use anstyle::{AnsiColor, Style};

/// Columns of a line, and where its text begins.
const WIDTH: usize = 80;
const INDENT: usize = 3;
const TEXT: usize = 13;

const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Where it is printed, and how many checks held so far.
pub(super) struct Screen {
    output: RefCell<Box<dyn Write>>,
    held: Cell<u32>,
    failed: Cell<u32>,
}

impl Screen {
    /// Standard output.
    pub(super) fn stdout() -> Screen {
        Screen::on(anstream::stdout())
    }

    pub(super) fn on(output: impl Write + 'static) -> Screen {
        Screen { output: RefCell::new(Box::new(output)), held: Cell::new(0), failed: Cell::new(0) }
    }

    /// A line as it is.
    pub(super) fn plain(&self, line: &str) {
        let _ = writeln!(self.output.borrow_mut(), "{line}");
    }

    /// An empty line, then a heading.
    pub(super) fn heading(&self, text: &str) {
        self.plain(&format!("\n{STRONG}{text}{STRONG:#}"));
    }

    /// Text under a label, broken between words. A word that is too long for a line keeps it for itself.
    pub(super) fn line(&self, label: &str, text: &str) {
        let mut label = label;
        for line in wrap(text, WIDTH - TEXT) {
            let width = TEXT - INDENT;
            self.plain(&format!("{:INDENT$}{FAINT}{label:width$}{FAINT:#}{line}", ""));
            label = "";
        }
    }

    /// Whether `found` is what it must be. Only a difference is printed.
    pub(super) fn check<T: PartialEq + Display>(&self, what: &str, found: T, expected: T) -> bool {
        let holds = found == expected;
        if holds {
            self.held.set(self.held.get() + 1);
        } else {
            self.failed(&format!("{what}: expected {expected}, found {found}"));
        }
        holds
    }

    /// Something went wrong.
    pub(super) fn failed(&self, what: &str) {
        self.failed.set(self.failed.get() + 1);
        self.plain(&format!("   {BAD}FAILED{BAD:#}    {what}"));
    }

    /// The verdict; whether all checks held.
    pub(super) fn conclude(&self) -> bool {
        let (held, failed) = (self.held.get(), self.failed.get());
        if failed == 0 {
            self.plain(&format!("\n{GOOD}All {held} checks held.{GOOD:#}"));
        } else {
            let checks = if failed == 1 { "check" } else { "checks" };
            self.plain(&format!("\n{BAD}{failed} {checks} failed, {held} held.{BAD:#}"));
        }
        failed == 0
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_only() {
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("ab cd ef", 5), ["ab cd", "ef"]);
        assert_eq!(wrap("a 0123456789 b", 5), ["a", "0123456789", "b"]);
    }

    #[test]
    fn one_failed_check_decides() {
        let screen = Screen::on(std::io::sink());
        screen.check("two", 2, 2);
        assert!(screen.conclude());
        screen.check("three", 2, 3);
        screen.check("two", 2, 2);
        assert!(!screen.conclude());
        assert_eq!((screen.held.get(), screen.failed.get()), (2, 1));
    }
}
