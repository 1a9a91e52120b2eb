//! YAML text → the line of each field. It takes some times the room of its text: it is made only to say where something is
//! wrong, and no more than once for all of a file.
//!
//! Nothing here calls itself, and nothing stands in another: text may be nested as deeply as it is long.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Parser};

use super::document::{DEEPEST, Step};

/// The lines of a text's documents, up to where it is no manifest any more.
pub(super) struct Lines {
    nodes: Vec<Children>,
    /// Of each document.
    roots: Vec<Option<Place>>,
}

/// A line, and what stands there: its place in `nodes`.
#[derive(Clone, Copy)]
struct Place {
    line: usize,
    node: usize,
}

enum Children {
    List(Vec<Place>),
    /// With the lines of the keys.
    Object(BTreeMap<String, Place>),
    None,
}

/// What has begun.
struct Open {
    place: Place,
    anchor: usize,
    /// Of an object: the key whose value comes next, and its line.
    key: Option<(String, usize)>,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let mut lines = Self { nodes: Vec::new(), roots: Vec::new() };
        lines.read(text);
        lines
    }

    /// Stops where the text is no manifest: what came before keeps its lines. Another reader says what is wrong.
    fn read(&mut self, text: &str) -> Option<()> {
        let (mut open, mut root) = (Vec::<Open>::new(), None);
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.ok()?;
            let line = span.start.line();
            let place = match event {
                Event::DocumentEnd => {
                    self.roots.push(root.take());
                    continue;
                }
                Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                    let is_list = matches!(event, Event::SequenceStart(..));
                    let node = self.add(if is_list {
                        Children::List(Vec::new())
                    } else {
                        Children::Object(BTreeMap::new())
                    });
                    (open.len() < DEEPEST).then_some(())?;
                    open.push(Open { place: Place { line, node }, anchor, key: None });
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let Open { place, anchor, .. } = open.pop()?;
                    anchors.insert(anchor, place.node);
                    place
                }
                Event::Scalar(text, _, anchor, _) => {
                    let node = self.add(Children::None);
                    anchors.insert(anchor, node);
                    if let Some(key) = open.last_mut().and_then(|open| self.awaited_key(open)) {
                        *key = Some((text.into_owned(), line));
                        continue;
                    }
                    Place { line, node }
                }
                Event::Alias(anchor) => Place { line, node: *anchors.get(&anchor)? },
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_) => continue,
            };
            match open.last_mut() {
                Some(open) => self.put(open, place)?,
                None => root = Some(place),
            }
        }
        Some(())
    }

    fn add(&mut self, node: Children) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn awaited_key<'o>(&self, open: &'o mut Open) -> Option<&'o mut Option<(String, usize)>> {
        let is_object = matches!(self.nodes.get(open.place.node), Some(Children::Object(_)));
        (is_object && open.key.is_none()).then_some(&mut open.key)
    }

    fn put(&mut self, open: &mut Open, place: Place) -> Option<()> {
        match self.nodes.get_mut(open.place.node)? {
            Children::List(items) => items.push(place),
            Children::Object(fields) => {
                let (key, line) = open.key.take()?;
                fields.insert(key, Place { line, ..place });
            }
            Children::None => {}
        }
        Some(())
    }

    /// The line of a field, or of what is left of its path.
    pub(super) fn line(&self, document: usize, path: &[Step]) -> usize {
        let Some(mut place) = self.roots.get(document).copied().flatten() else { return 1 };
        for step in path {
            let child = match (self.nodes.get(place.node), step) {
                (Some(Children::Object(fields)), Step::Key(key)) => fields.get(key),
                (Some(Children::List(items)), Step::Index(index)) => items.get(*index),
                _ => None,
            };
            let Some(child) = child else { break };
            place = *child;
        }
        place.line.max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::document::{SyntaxError, steps, values};
    use super::*;

    #[test]
    fn a_field_has_the_line_of_its_key() {
        let text = "a: 1\n---\nspec:\n  mappings:\n  - name: x\n    deep: {k: v}\n  - name: y\n  - &z\n    name: z\n  - *z\n";
        let lines = Lines::of(text);
        for (field, line) in [
            ("spec", 3),
            ("spec.mappings[1].name", 7),
            ("spec.mappings[0].deep.k", 6),
            ("spec.mappings[3]", 10),
            ("spec.mappings[3].name", 9),
            ("spec.gone", 3),
        ] {
            assert_eq!(lines.line(1, &steps(field)), line, "{field}");
        }
    }

    #[test]
    fn what_comes_after_the_end_of_what_is_a_manifest_is_not_read() {
        let doubled = (1..200).fold("z0: &z0 [x]\n".to_owned(), |text, n| {
            format!("{text}z{n}: &z{n} [*z{0}, *z{0}]\n", n - 1)
        });
        for after in ["- ", "[", "{a: ", "? "].map(|opening| opening.repeat(100_000)) {
            let lines = Lines::of(&format!("a: 1\nb:\n  c: 2\n---\n{after}"));
            assert_eq!((lines.roots.len(), lines.line(0, &steps("b.c"))), (1, 3));
        }
        // And what stands for very much is not written out.
        let lines = Lines::of(&doubled);
        assert_eq!(lines.line(0, &steps("z199[0][1][1]")), 198);
        assert!(lines.nodes.len() < 1000);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[-a-z:{}\\[\\]\"'&*!|>?%@#, \n]{0,60}") {
            let lines = Lines::of(&text);
            let read: Result<Vec<Value>, SyntaxError> = values(&text).collect();
            // What is read has lines.
            if let Ok(values) = read {
                prop_assert_eq!(values.len(), lines.roots.len(), "{:?}", text);
            }
        }
    }
}
