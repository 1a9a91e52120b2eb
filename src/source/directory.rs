//! A directory of manifests, and the last good state of every object in it.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::manifest;
use super::problem::Problem;
use super::reading::{Reading, Targets};
use super::schema::PolicySchema;
use crate::compile::{Object, ObjectKind, ObjectRef, World};

/// Larger files are no manifests.
const LONGEST_FILE: u64 = 64 * 1024 * 1024;
/// Deeper folders are a loop of links.
const DEEPEST: usize = 16;
/// Editors replace a file by removing it first: this long it counts as being replaced, not as deleted.
pub(super) const GRACE: Duration = Duration::from_millis(300);

/// What a directory holds now.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Every object, in its last good state.
    pub world: World,
    /// Everything that cannot be read.
    pub problems: Vec<Problem>,
    /// Whether anything is different from the last time.
    pub changed: bool,
    /// Whether a file is gone, and it is yet to be seen whether it comes back: look again soon.
    pub pending: bool,
}

/// A directory that is read again and again.
pub struct Directory {
    root: PathBuf,
    schema: PolicySchema,
    files: BTreeMap<PathBuf, FileState>,
    good: BTreeMap<ObjectRef, Object>,
    first: bool,
}

#[derive(Debug, Default)]
struct FileState {
    stamp: Option<(SystemTime, u64)>,
    objects: Vec<(ObjectRef, Kept)>,
    problems: Vec<Problem>,
    /// It was there at start-up, could not be read, and may hold a policy.
    suspect: bool,
    /// The same, and nothing at all can be said of what it holds.
    opaque: bool,
    /// Since when it is gone.
    missing: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Kept {
    Good(Object),
    Unreadable { targets: Targets },
}

impl Directory {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let (files, good) = (BTreeMap::new(), BTreeMap::new());
        Self { root: root.to_owned(), schema: PolicySchema::default(), files, good, first: true }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads what changed.
    ///
    /// # Errors
    /// The directory itself cannot be listed; everything stays as it was.
    pub fn rescan(&mut self) -> io::Result<Scan> {
        let mut found = BTreeMap::new();
        if self.root.is_file() {
            found.insert(PathBuf::new(), fs::metadata(&self.root)?);
        } else {
            list(&self.root, Path::new(""), DEEPEST, &mut found)?;
        }
        let mut changed = self.forget(&found) || self.first;
        for (path, metadata) in found {
            changed |= self.read(path, &metadata);
        }
        self.first = false;
        // It takes more than most manifests do, and they seldom change.
        self.schema = PolicySchema::default();
        let (world, problems) = self.merge();
        let pending = self.files.values().any(|state| state.missing.is_some());
        Ok(Scan { world, problems, changed, pending })
    }

    /// Drops files that are gone for good; says whether there were any.
    fn forget(&mut self, found: &BTreeMap<PathBuf, Metadata>) -> bool {
        #[expect(clippy::disallowed_methods, reason = "how long a file is gone is measured here")]
        let now = Instant::now();
        let before = self.files.len();
        self.files.retain(|path, state| {
            if found.contains_key(path) {
                state.missing = None;
                return true;
            }
            now.duration_since(*state.missing.get_or_insert(now)) < GRACE
        });
        before != self.files.len()
    }

    /// The files that are there, and the objects that were read from each.
    pub(super) fn objects(
        &self,
    ) -> impl Iterator<Item = (&Path, impl Iterator<Item = &ObjectRef>)> {
        let there = self.files.iter().filter(|(_, state)| state.missing.is_none());
        there.map(|(path, state)| (&**path, state.objects.iter().map(|(object, _)| object)))
    }

    /// A file's text.
    pub(super) fn text(&self, path: &Path) -> io::Result<String> {
        text(&join(&self.root, path))
    }

    /// Whether anything came of it.
    fn read(&mut self, path: PathBuf, metadata: &Metadata) -> bool {
        let stamp = metadata.modified().ok().map(|modified| (modified, metadata.len()));
        if stamp.is_some() && self.files.get(&path).is_some_and(|state| state.stamp == stamp) {
            return false;
        }
        let problem = |line, message: String| Problem {
            file: path.clone(),
            line,
            object: None,
            field: String::new(),
            message,
        };
        let text = match self.text(&path) {
            Ok(text) => text,
            Err(error) => return self.unread(&path, stamp, problem(1, error.to_string()), true),
        };
        if let Some(why) = half_written(&path, &text) {
            let line = text.lines().count().max(1);
            return self.unread(
                &path,
                stamp,
                problem(
                    line,
                    format!(
                        "{why}: it counts as half-written; what was read before stays in force"
                    ),
                ),
                true,
            );
        }
        match manifest::read(&text, &self.schema) {
            Ok((readings, problems)) => {
                let problems = problems.into_iter().map(|found| Problem {
                    object: found.object,
                    field: found.field,
                    ..problem(found.line, found.message)
                });
                let problems = problems.collect();
                let objects: Vec<(ObjectRef, Kept)> =
                    readings.into_iter().filter_map(|reading| self.keep(reading)).collect();
                let partial = |(object, kept): &(ObjectRef, Kept)| {
                    object.kind == ObjectKind::CertMappingPolicy
                        && matches!(kept, Kept::Unreadable { targets } if targets.partial)
                };
                // Whom it was to protect is not known: at the start, it could be any.
                let suspect = self.first && objects.iter().any(partial);
                let state = FileState { stamp, objects, problems, suspect, ..FileState::default() };
                self.files.insert(path, state);
                true
            }
            Err(error) => {
                let suspect = text.to_ascii_lowercase().contains("certmap");
                self.unread(&path, stamp, problem(error.line, error.message), suspect)
            }
        }
    }

    /// A file of which nothing can be said: its objects stay as they were.
    fn unread(
        &mut self,
        path: &Path,
        stamp: Option<(SystemTime, u64)>,
        problem: Problem,
        suspect: bool,
    ) -> bool {
        let suspect = self.first && suspect;
        let state = self.files.entry(path.to_owned()).or_insert_with(|| FileState {
            suspect,
            opaque: suspect,
            ..FileState::default()
        });
        state.stamp = stamp;
        let changed = state.problems != [problem.clone()];
        state.problems = vec![problem];
        changed
    }

    /// The newest good state; the very same object where nothing changed.
    fn keep(&self, reading: Reading) -> Option<(ObjectRef, Kept)> {
        match reading {
            Reading::Object(object) => {
                let reference = object.reference();
                let same = self.good.get(&reference).filter(|old| **old == object).cloned();
                Some((reference, Kept::Good(same.unwrap_or(object))))
            }
            Reading::Broken { object, targets } => match self.good.get(&object) {
                Some(good) => Some((object, Kept::Good(good.clone()))),
                None => {
                    let refuses = object.kind.is_policy();
                    refuses.then_some((object, Kept::Unreadable { targets }))
                }
            },
        }
    }

    /// All files as one world. Of an object that stands in two, the first in the order of paths counts.
    fn merge(&mut self) -> (World, Vec<Problem>) {
        let mut world = World {
            incomplete: self.files.values().any(|state| state.suspect),
            unread_manifest: self.files.values().any(|state| state.opaque),
            ..World::default()
        };
        let mut problems: Vec<Problem> = Vec::new();
        let mut owners: BTreeMap<ObjectRef, PathBuf> = BTreeMap::new();
        self.good.clear();
        // What is on its way out does not stand in the way of what has come in its place.
        let (there, gone): (Vec<_>, Vec<_>) =
            self.files.iter().partition(|(_, state)| state.missing.is_none());
        for (path, state) in there.into_iter().chain(gone) {
            problems.extend(state.problems.iter().cloned());
            for (reference, kept) in &state.objects {
                if state.missing.is_some() && owners.contains_key(reference) {
                    continue;
                }
                if let Some(owner) = owners.get(reference) {
                    let message = format!(
                        "stands in {} already: that one counts; remove one of them",
                        owner.display()
                    );
                    let object = Some(reference.clone());
                    problems.push(Problem {
                        file: path.clone(),
                        line: 1,
                        object,
                        field: String::new(),
                        message,
                    });
                    continue;
                }
                owners.insert(reference.clone(), path.clone());
                match kept {
                    Kept::Good(object) => {
                        self.good.insert(reference.clone(), object.clone());
                        world.apply(object.clone());
                    }
                    Kept::Unreadable { targets } => {
                        world.put_unreadable(reference, targets.clone().refused(reference.kind));
                    }
                }
            }
        }
        (world, problems)
    }
}

/// A path of "" is the root itself, which then is a file.
fn join(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn list(
    root: &Path,
    folder: &Path,
    depth: usize,
    found: &mut BTreeMap<PathBuf, Metadata>,
) -> io::Result<()> {
    let Some(deeper) = depth.checked_sub(1) else { return Ok(()) };
    for entry in fs::read_dir(root.join(folder))? {
        let name = entry?.file_name();
        let path = folder.join(&name);
        // Links are followed: that is how Kubernetes mounts a ConfigMap. One that leads nowhere is no file.
        let Ok(metadata) = fs::metadata(root.join(&path)) else { continue };
        let hidden = name.to_string_lossy().starts_with('.');
        let manifest = path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"].iter().any(|known| extension == *known)
        });
        if hidden {
            continue;
        }
        if metadata.is_dir() {
            if let Err(error) = list(root, &path, deeper, found) {
                // A folder that vanished or is closed: its files keep their state only if they are listed.
                tracing::warn!(folder = %path.display(), %error, "a folder cannot be listed");
                return Err(error);
            }
        } else if manifest {
            found.insert(path, metadata);
        }
    }
    Ok(())
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > LONGEST_FILE {
        return Err(io::Error::other(format!("larger than {LONGEST_FILE} octets")));
    }
    Ok(text)
}

/// Why a file is not yet whole.
fn half_written(path: &Path, text: &str) -> Option<&'static str> {
    let json = path.extension().is_some_and(|extension| extension == "json");
    if text.trim().is_empty() {
        Some("the file is empty")
    } else if !json && !text.ends_with('\n') {
        Some("the file's last line does not end")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\n";

    fn service(name: &str) -> String {
        SERVICE.replace("NAME", name)
    }

    fn names(scan: &Scan) -> Vec<&str> {
        scan.world.services.keys().map(|name| name.name.as_str()).collect()
    }

    fn directory(files: &[(&str, &str)]) -> (tempfile::TempDir, Directory) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let directory = Directory::new(root.path());
        (root, directory)
    }

    #[test]
    fn folders_are_read_and_dot_files_are_not() {
        let (a, b, c) = (service("a"), service("b"), service("c"));
        let (_root, mut directory) = directory(&[
            ("a.yaml", &a),
            ("sub/b.yml", &b),
            (".c.yaml", &c),
            ("d.txt", &c),
            (".git/e.yaml", &c),
        ]);
        assert_eq!(names(&directory.rescan().unwrap()), ["a", "b"]);
    }

    #[test]
    fn what_did_not_change_is_the_very_same_object() {
        let both = format!("{}---\n{}", service("a"), service("b"));
        let (root, mut directory) = directory(&[("x.yaml", &both)]);
        let first = directory.rescan().unwrap();
        assert!(!directory.rescan().unwrap().changed);
        fs::write(root.path().join("x.yaml"), format!("{both}spec: {{type: ClusterIP}}\n"))
            .unwrap();
        let second = directory.rescan().unwrap();
        let same = |name: &str| {
            let service = |scan: &Scan| {
                scan.world.services.iter().find(|(n, _)| n.name == name).unwrap().1.clone()
            };
            std::sync::Arc::ptr_eq(&service(&first), &service(&second))
        };
        assert!(second.changed && same("a") && !same("b"));
    }

    #[test]
    fn a_file_that_is_replaced_is_never_missed() {
        let (a, b) = (service("a"), service("b"));
        let (root, mut directory) = directory(&[("a.yaml", &a), ("b.yaml", &b)]);
        directory.rescan().unwrap();
        fs::remove_file(root.path().join("a.yaml")).unwrap();
        let gone = directory.rescan().unwrap();
        assert!(gone.pending && names(&gone) == ["a", "b"]);
        fs::write(root.path().join("other.yaml"), &a).unwrap();
        let moved = directory.rescan().unwrap();
        assert!(moved.problems.is_empty() && names(&moved) == ["a", "b"], "{:?}", moved.problems);
        fs::remove_file(root.path().join("other.yaml")).unwrap();
        fs::remove_file(root.path().join("b.yaml")).unwrap();
        directory.rescan().unwrap();
        std::thread::sleep(GRACE);
        let after = directory.rescan().unwrap();
        assert!(after.changed && !after.pending && names(&after).is_empty());
    }

    #[test]
    fn of_two_the_first_counts() {
        let a = service("a");
        let (_root, mut directory) = directory(&[("1.yaml", &a), ("2.yaml", &a)]);
        let scan = directory.rescan().unwrap();
        assert_eq!(scan.problems.len(), 1);
        assert!(
            scan.problems[0]
                .to_string()
                .starts_with("2.yaml:1: Service default/a: stands in 1.yaml already")
        );
    }

    #[test]
    fn a_broken_object_keeps_its_last_good_state_and_the_others_go_on() {
        let text = format!("{}---\n{}", service("a"), service("b"));
        let (root, mut directory) = directory(&[("x.yaml", &text)]);
        directory.rescan().unwrap();
        let broken = format!("{}spec: 7\n---\n{}", service("a"), service("c"));
        fs::write(root.path().join("x.yaml"), broken).unwrap();
        let scan = directory.rescan().unwrap();
        assert_eq!(names(&scan), ["a", "c"]);
        assert_eq!((scan.problems[0].line, scan.problems[0].field.as_str()), (4, "spec"));
    }

    #[test]
    fn an_unreadable_file_at_the_start_may_be_anything() {
        let nobody = "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {name: p}\nspec: {targetRef: []}\n";
        for (text, incomplete) in [
            (nobody, true),
            ("certmap: [\n", true),
            ("other: [\n", false),
            ("", true),
            ("a: 1", true),
        ] {
            let (_root, mut directory) = directory(&[("x.yaml", text)]);
            assert_eq!(directory.rescan().unwrap().world.incomplete, incomplete, "{text:?}");
        }
        let (root, mut directory) = directory(&[]);
        directory.rescan().unwrap();
        fs::write(root.path().join("x.yaml"), "certmap: [\n").unwrap();
        let later = directory.rescan().unwrap();
        assert!(!later.world.incomplete && later.problems.len() == 1);
    }
}
