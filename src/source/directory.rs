//! A directory of manifests, and the last good state of every object in it.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::manifest::{self, Reading};
use super::problem::Problem;
use super::schema::PolicySchema;
use crate::compile::{Object, ObjectKind, ObjectRef, PolicyObject, World};

/// Larger files are no manifests.
const LONGEST_FILE: u64 = 64 * 1024 * 1024;
/// Deeper folders are a loop of links.
const DEEPEST: usize = 16;

/// What a directory holds now.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Every object, in its last good state.
    pub world: World,
    /// Everything that cannot be read.
    pub problems: Vec<Problem>,
    /// Whether anything is different from the last time.
    pub changed: bool,
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
}

#[derive(Clone, Debug)]
enum Kept {
    Good(Object),
    Unreadable { targets: Vec<String> },
}

impl Directory {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let (files, good) = (BTreeMap::new(), BTreeMap::new());
        Self { root: root.to_owned(), schema: PolicySchema::new(), files, good, first: true }
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
        let before = self.files.len();
        self.files.retain(|path, _| found.contains_key(path));
        let mut changed = self.first || before != self.files.len();
        for (path, metadata) in found {
            changed |= self.read(path, &metadata);
        }
        self.first = false;
        let (world, problems) = self.merge();
        Ok(Scan { world, problems, changed })
    }

    /// Where an object's field stands.
    #[must_use]
    pub fn locate(&self, object: &ObjectRef, field: &str) -> Option<(PathBuf, usize)> {
        let (path, _) = self
            .files
            .iter()
            .find(|(_, state)| state.objects.iter().any(|(known, _)| known == object))?;
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        manifest::line_of(&text, object, field).map(|line| (path.clone(), line))
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
        let text = match text(&join(&self.root, &path)) {
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
                let objects = readings
                    .into_iter()
                    .map(|reading| self.keep(reading))
                    .filter_map(|kept| kept)
                    .collect();
                self.files.insert(path, FileState { stamp, objects, problems, suspect: false });
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
        let first = self.first;
        let state = self
            .files
            .entry(path.to_owned())
            .or_insert_with(|| FileState { suspect: first && suspect, ..FileState::default() });
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
                let same = self.good.get(&reference).filter(|old| equal(old, &object)).cloned();
                Some((reference, Kept::Good(same.unwrap_or(object))))
            }
            Reading::Broken { object, targets } => match self.good.get(&object) {
                Some(good) => Some((object, Kept::Good(good.clone()))),
                None if object.kind == ObjectKind::CertMappingPolicy => {
                    Some((object, Kept::Unreadable { targets }))
                }
                None => None,
            },
        }
    }

    /// All files as one world. Of an object that stands in two, the first in the order of paths counts.
    fn merge(&mut self) -> (World, Vec<Problem>) {
        let mut world = World {
            incomplete: self.files.values().any(|state| state.suspect),
            ..World::default()
        };
        let mut problems: Vec<Problem> = Vec::new();
        let mut owners: BTreeMap<ObjectRef, PathBuf> = BTreeMap::new();
        self.good.clear();
        for (path, state) in &self.files {
            problems.extend(state.problems.iter().cloned());
            for (reference, kept) in &state.objects {
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
                        let unreadable = PolicyObject::Unreadable { targets: targets.clone() };
                        drop(world.policies.insert(reference.name.clone(), unreadable));
                    }
                }
            }
        }
        (world, problems)
    }
}

fn equal(a: &Object, b: &Object) -> bool {
    match (a, b) {
        (Object::Policy(a), Object::Policy(b)) => a == b,
        (Object::ConfigMap(a), Object::ConfigMap(b)) => a == b,
        (Object::EndpointSlice(a), Object::EndpointSlice(b)) => a == b,
        (Object::Ingress(a), Object::Ingress(b)) => a == b,
        (Object::IngressClass(a), Object::IngressClass(b)) => a == b,
        (Object::Secret(a), Object::Secret(b)) => a == b,
        (Object::Service(a), Object::Service(b)) => a == b,
        _ => false,
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
