//! What a command says: printed as it comes and, where that is wanted, put into docs/performance.md.

use std::path::PathBuf;

use anyhow::{Context, bail};

/// A part of the page between two marks of its name.
#[derive(Debug)]
pub(crate) struct Section {
    name: String,
    text: String,
}

impl Section {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), text: String::new() }
    }

    pub(crate) fn line(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Takes the place of what stood between the marks.
    pub(crate) fn finish(self, write: bool) -> anyhow::Result<()> {
        println!();
        if !write {
            return Ok(());
        }
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        let page = std::fs::read_to_string(&path)?;
        std::fs::write(&path, replaced(&page, &self.name, &self.text)?)?;
        Ok(())
    }
}

fn replaced(page: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) =
        (format!("<!-- compare:begin {name} -->\n"), format!("<!-- compare:end {name} -->"));
    let (before, rest) =
        page.split_once(&begin).with_context(|| format!("docs/performance.md lacks {begin}"))?;
    let (_, after) =
        rest.split_once(&end).with_context(|| format!("docs/performance.md lacks {end}"))?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

/// What was missed by more than this machine's spread.
#[derive(Debug, Default)]
pub(crate) struct Verdict(Vec<String>);

/// Of what a limit allows.
const AIR: f64 = 1.2;

impl Verdict {
    pub(crate) fn at_most(&mut self, what: &str, value: f64, limit: f64) {
        // Not a number is no pass.
        if value.is_nan() || value > limit * AIR {
            self.0.push(format!("{what}: {value:.2} in place of at most {limit}"));
        }
    }

    pub(crate) fn at_least(&mut self, what: &str, value: f64, limit: f64) {
        if value.is_nan() || value < limit / AIR {
            self.0.push(format!("{what}: {value:.2} in place of at least {limit}"));
        }
    }

    pub(crate) fn must(&mut self, what: &str, holds: bool) {
        if !holds {
            self.0.push(what.to_owned());
        }
    }

    pub(crate) fn end(self) -> anyhow::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!("missed by more than a fifth: {}", self.0.join("; "))
    }
}
