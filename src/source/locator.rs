//! Where what was found stands: file and line.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::directory::Directory;
use super::manifest::Places;
use crate::compile::ObjectRef;

/// Places in a directory's files. A file is read when something is first found in it, and once for all that is: it is made
/// for one telling of what was found, and dropped.
pub struct Locator<'a> {
    directory: &'a Directory,
    files: HashMap<&'a ObjectRef, Rc<File<'a>>>,
}

struct File<'a> {
    path: &'a Path,
    places: OnceCell<Option<Places>>,
}

impl<'a> Locator<'a> {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(directory: &'a Directory) -> Self {
        let mut files = HashMap::new();
        for (path, objects) in directory.objects() {
            let file = Rc::new(File { path, places: OnceCell::new() });
            for object in objects {
                files.entry(object).or_insert_with(|| file.clone());
            }
        }
        Self { directory, files }
    }

    /// Where an object's field stands.
    #[must_use]
    pub fn locate(&self, object: &ObjectRef, field: &str) -> Option<(PathBuf, usize)> {
        let file = self.files.get(object)?;
        let read = || self.directory.text(file.path).ok().map(|text| Places::of(&text));
        let line = file.places.get_or_init(read).as_ref()?.line(object, field)?;
        Some((file.path.to_owned(), line))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use super::*;
    use crate::compile::{ObjectKind, ObjectName};

    fn service(number: usize) -> ObjectRef {
        let name = ObjectName::new("default", &format!("s{number}"));
        ObjectRef { kind: ObjectKind::Service, name }
    }

    #[test]
    fn a_file_is_read_once_however_much_is_found_in_it() {
        const MANY: usize = 2000;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("all.yaml");
        let text = (0..MANY).fold(String::new(), |mut text, number| {
            let head = "apiVersion: v1\nkind: Service\nmetadata:\n";
            write!(text, "---\n{head}  name: s{number}\nspec: {{type: ClusterIP}}\n").unwrap();
            text
        });
        fs::write(&path, text).unwrap();
        for root in [root.path(), &path] {
            let mut directory = Directory::new(root);
            assert!(directory.rescan().unwrap().problems.is_empty());
            let locator = Locator::new(&directory);
            let line = |number: usize, field: &str| locator.locate(&service(number), field);
            let file = if root == path { "" } else { "all.yaml" };
            assert_eq!(line(0, "spec.type"), Some((file.into(), 6)));
            // Whoever reads it again finds nothing.
            let aside = path.with_extension("aside");
            fs::rename(&path, &aside).unwrap();
            for number in 0..MANY {
                assert_eq!(line(number, "metadata.name").unwrap().1, number * 6 + 5);
            }
            assert_eq!(line(MANY, ""), None);
            fs::rename(&aside, &path).unwrap();
        }
    }
}
