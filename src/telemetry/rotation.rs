//! A log file that begins anew each day (UTC) and whenever it has grown too large.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

const SECONDS_OF_A_DAY: i64 = 86_400;

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
    /// Days since 1970.
    day: i64,
}

impl Open {
    /// A line of the day before may come late; it does not turn the file back.
    fn is_full(&self, length: usize, day: i64, longest: u64) -> bool {
        self.day < day || (self.length > 0 && self.length + length as u64 > longest)
    }
}

fn day(time: Timestamp) -> i64 {
    time.as_second().div_euclid(SECONDS_OF_A_DAY)
}

fn date(day: i64) -> String {
    let begin = Timestamp::from_second(day.saturating_mul(SECONDS_OF_A_DAY));
    begin.unwrap_or_default().strftime("%Y-%m-%d").to_string()
}

impl RotatingFile {
    /// Nothing is opened yet. `begin` makes what stands at the top of each file.
    pub(super) fn new(path: &Path, longest: u64, begin: fn(Timestamp) -> Vec<u8>) -> Self {
        Self { path: path.to_owned(), longest, begin, open: None }
    }

    /// Whether the file can be written.
    pub(super) fn check(path: &Path) -> io::Result<()> {
        OpenOptions::new().create(true).append(true).mode(0o640).open(path).map(drop)
    }

    /// Whether a line of this length and time needs a file to be opened, or a new one to be begun.
    pub(super) fn turns_for(&self, length: usize, time: Timestamp) -> bool {
        self.open.as_ref().is_none_or(|open| open.is_full(length, day(time), self.longest))
    }

    /// Sees to it that the file is open that a line of this length and time belongs to.
    pub(super) fn prepare(&mut self, length: usize, time: Timestamp) -> io::Result<()> {
        let day = day(time);
        // What stands there already may be full, or of another day.
        for _ in 0..2 {
            if self.open.as_ref().is_some_and(|open| open.is_full(length, day, self.longest)) {
                self.rotate(day);
            }
            if self.open.is_none() {
                self.open = Some(self.open(day, time)?);
            }
        }
        if let Some(open) = &mut self.open {
            open.length += length as u64;
        }
        Ok(())
    }

    /// Writes lines for which everything is prepared.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.open.as_mut().map_or(Ok(()), |open| open.file.write_all(lines));
        if written.is_err() {
            self.open = None;
        }
        written
    }

    /// What stands there already is of the day on which it was last written, and may end in the middle of a line.
    fn open(&self, mut day: i64, time: Timestamp) -> io::Result<Open> {
        let mut file =
            OpenOptions::new().create(true).append(true).read(true).mode(0o640).open(&self.path)?;
        let metadata = file.metadata()?;
        if metadata.len() > 0 {
            let written =
                metadata.modified().ok().and_then(|modified| Timestamp::try_from(modified).ok());
            day = written.map_or(day, self::day);
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        file.write_all(&(self.begin)(time))?;
        let length = file.metadata()?.len();
        Ok(Open { file, length, day })
    }

    /// Where the full file cannot be renamed, it goes on being written.
    fn rotate(&mut self, day: i64) {
        let Some(open) = &mut self.open else { return };
        let date = date(open.day);
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{date}.{number}"));
            PathBuf::from(name)
        };
        let free = (1..).map(numbered).find(|path| !path.exists());
        match free.map(|free| std::fs::rename(&self.path, free)) {
            Some(Err(error)) => {
                tracing::error!(%error, file = %self.path.display(), "the access log cannot be rotated");
                (open.length, open.day) = (0, day);
            }
            Some(Ok(())) | None => self.open = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl RotatingFile {
        fn write(&mut self, line: &[u8], time: Timestamp) -> io::Result<()> {
            self.prepare(line.len(), time)?;
            self.append(line)
        }
    }

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
        std::fs::write(&path, "torn").unwrap();
        let today = Timestamp::now();
        let day = today.strftime("%Y-%m-%d").to_string();
        std::fs::write(directory.path().join(format!("log.{day}.1")), "kept").unwrap();
        let mut file = RotatingFile::new(&path, 9, |_| b"#\n".to_vec());
        file.write(b"a\n", today).unwrap();
        file.write(b"b\n", today).unwrap();
        let second = directory.path().join(format!("log.{day}.2"));
        assert_eq!(std::fs::read_to_string(second).unwrap(), "torn\n#\na\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "#\nb\n");
    }

    #[test]
    fn what_was_written_on_another_day_is_rotated_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "old\n").unwrap();
        let mut file = RotatingFile::new(&path, 100, |_| b"#\n".to_vec());
        file.write(b"a\n", "2100-01-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(files(directory.path()).len(), 2);
        assert_eq!(std::fs::read_to_string(path).unwrap(), "#\na\n");
    }
}
