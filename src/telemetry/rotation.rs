//! A log file that begins anew each day (UTC) and whenever it has grown too large.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// The current file keeps its name; a full one gets the day of its lines and a number behind it.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    longest: u64,
    begin: fn(Timestamp) -> Vec<u8>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
    day: String,
}

impl RotatingFile {
    /// Nothing is opened yet. `begin` makes what stands at the top of each file.
    pub(super) fn new(path: &Path, longest: u64, begin: fn(Timestamp) -> Vec<u8>) -> Self {
        Self { path: path.to_owned(), longest, begin, open: None }
    }

    /// Writes one line, in a new file where it is time for one.
    pub(super) fn write(&mut self, line: &[u8], time: Timestamp) -> io::Result<()> {
        let day = time.strftime("%Y-%m-%d").to_string();
        let length = line.len() as u64;
        // A line of the day before may come late; it does not turn the file back.
        let full = |open: &Open| {
            open.day < day || (open.length > 0 && open.length + length > self.longest)
        };
        if self.open.as_ref().is_some_and(full) {
            self.rotate()?;
        }
        if self.open.is_none() {
            self.open = Some(self.open(&day, time)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.length += length;
        let written = open.file.write_all(line);
        if written.is_err() {
            self.open = None;
        }
        written
    }

    fn open(&self, day: &str, time: Timestamp) -> io::Result<Open> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let begin = (self.begin)(time);
        file.write_all(&begin)?;
        let length = file.metadata()?.len();
        Ok(Open { file, length, day: day.to_owned() })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{}.{number}", open.day));
            PathBuf::from(name)
        };
        let free = (1..).map(numbered).find(|path| !path.exists());
        free.map_or(Ok(()), |free| std::fs::rename(&self.path, free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn begins_anew_by_day_and_by_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = RotatingFile::new(&path, 25, |_| b"#\n".to_vec());
        let day = |text: &str| text.parse::<Timestamp>().unwrap();
        for time in [
            "2026-01-01T10:00:00Z",
            "2026-01-01T23:59:59Z",
            "2026-01-02T00:00:00Z",
            "2026-01-01T23:59:59Z",
        ] {
            file.write(b"0123456789\n", day(time)).unwrap();
        }
        file.write(b"0123456789\n", day("2026-01-02T00:00:01Z")).unwrap();
        assert_eq!(files(directory.path()), ["log", "log.2026-01-01.1", "log.2026-01-02.1"]);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "#\n0123456789\n");
    }

    #[test]
    fn goes_on_after_what_stands_there_and_overwrites_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "old\n").unwrap();
        std::fs::write(directory.path().join("log.1970-01-01.1"), "kept").unwrap();
        let mut file = RotatingFile::new(&path, 8, |_| b"#\n".to_vec());
        file.write(b"a\n", Timestamp::UNIX_EPOCH).unwrap();
        file.write(b"b\n", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(files(directory.path()), ["log", "log.1970-01-01.1", "log.1970-01-01.2"]);
        assert_eq!(
            std::fs::read_to_string(directory.path().join("log.1970-01-01.2")).unwrap(),
            "old\n#\na\n"
        );
    }
}
