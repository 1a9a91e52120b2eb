//! YAML text → values, one document at a time.
//!
//! How deep a value is, is looked at before it is made: whoever walks over one calls himself for each level of it.

use std::collections::BTreeMap;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScanError, StrInput};
use serde_json::{Map, Number, Value};

/// Deeper nesting is no Kubernetes object.
pub(super) const DEEPEST: usize = 64;
/// Aliases stand for no more than this in one file: a few that name each other would fill all memory.
const MOST_ALIASED: usize = 100_000;

/// A step into a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Text that is not YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

impl SyntaxError {
    fn new(line: usize, message: &str) -> Self {
        Self { line, message: message.to_owned() }
    }
}

impl From<ScanError> for SyntaxError {
    fn from(error: ScanError) -> Self {
        Self::new(error.marker().line(), error.info())
    }
}

/// The value of each document, nulls left out: to Kubernetes, null and absent are one.
pub(super) fn values(text: &str) -> impl Iterator<Item = Result<Value, SyntaxError>> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), left: MOST_ALIASED };
    let mut failed = false;
    std::iter::from_fn(move || {
        let next = if failed { None } else { reader.document().transpose() };
        failed |= next.as_ref().is_some_and(Result::is_err);
        next
    })
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Value>,
    /// How many values aliases may still stand for.
    left: usize,
}

/// A list or an object that has begun, and the anchor that it is known by (0: by none).
enum Open {
    List(Vec<Value>, usize),
    /// And the key whose value comes next.
    Object(Map<String, Value>, Option<String>, usize),
}

impl Reader<'_> {
    /// The next document's value; nothing at the end.
    fn document(&mut self) -> Result<Option<Value>, SyntaxError> {
        let (mut open, mut root) = (Vec::new(), None);
        for event in self.parser.by_ref() {
            let (event, span) = event?;
            let line = span.start.line();
            let value = match event {
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_) => continue,
                Event::DocumentEnd => return Ok(Some(root.unwrap_or_default())),
                Event::SequenceStart(anchor, _) => {
                    begin(&mut open, Open::List(Vec::new(), anchor), line)?;
                    continue;
                }
                Event::MappingStart(anchor, _) => {
                    begin(&mut open, Open::Object(Map::new(), None, anchor), line)?;
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let (value, anchor) = end(open.pop());
                    keep(&mut self.anchors, anchor, &value);
                    value
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let scalar = Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref())
                        .ok_or_else(|| SyntaxError::new(line, "not a value"))?;
                    let value = scalar_value(scalar)
                        .ok_or_else(|| SyntaxError::new(line, "not a number that JSON can hold"))?;
                    keep(&mut self.anchors, anchor, &value);
                    value
                }
                Event::Alias(anchor) => {
                    let value = aliased(&self.anchors, &mut self.left, anchor, line)?;
                    if open.len() + depth(&value) > DEEPEST {
                        return Err(too_deep(line));
                    }
                    value
                }
            };
            match open.last_mut() {
                Some(open) => put(open, value, line)?,
                None => root = Some(value),
            }
        }
        Ok(root)
    }
}

fn begin(open: &mut Vec<Open>, new: Open, line: usize) -> Result<(), SyntaxError> {
    if open.len() >= DEEPEST {
        return Err(too_deep(line));
    }
    if let Some(Open::Object(_, None, _)) = open.last() {
        return Err(not_a_key(line));
    }
    open.push(new);
    Ok(())
}

fn end(open: Option<Open>) -> (Value, usize) {
    match open {
        Some(Open::List(items, anchor)) => (Value::Array(items), anchor),
        Some(Open::Object(mut fields, _, anchor)) => {
            // Until now they stood there so that the same key would not go unnoticed.
            fields.retain(|_, value| !value.is_null());
            (Value::Object(fields), anchor)
        }
        None => (Value::Null, 0),
    }
}

fn put(open: &mut Open, value: Value, line: usize) -> Result<(), SyntaxError> {
    match open {
        Open::List(items, _) => items.push(value),
        Open::Object(fields, key, _) => match key.take() {
            Some(key) => {
                fields.insert(key, value);
            }
            None => match value {
                Value::String(name) if fields.contains_key(&name) => {
                    return Err(SyntaxError::new(line, "duplicated key in mapping"));
                }
                Value::String(name) => *key = Some(name),
                _ => return Err(not_a_key(line)),
            },
        },
    }
    Ok(())
}

fn too_deep(line: usize) -> SyntaxError {
    SyntaxError::new(line, "nested too deeply")
}

fn not_a_key(line: usize) -> SyntaxError {
    SyntaxError::new(line, "a key is not a string: put it in quotes")
}

fn keep(anchors: &mut BTreeMap<usize, Value>, anchor: usize, value: &Value) {
    if anchor > 0 {
        anchors.insert(anchor, value.clone());
    }
}

fn aliased(
    anchors: &BTreeMap<usize, Value>,
    left: &mut usize,
    anchor: usize,
    line: usize,
) -> Result<Value, SyntaxError> {
    let value = anchors.get(&anchor).ok_or_else(|| SyntaxError::new(line, "not a value"))?;
    *left = left
        .checked_sub(size(value))
        .ok_or_else(|| SyntaxError::new(line, "aliases stand for too much"))?;
    Ok(value.clone())
}

/// How many lists and objects stand in each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(depth).max().unwrap_or_default() + 1,
        Value::Object(fields) => fields.values().map(depth).max().unwrap_or_default() + 1,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 1,
        Value::Object(fields) => fields.values().map(size).sum::<usize>() + 1,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

fn scalar_value(scalar: Scalar<'_>) -> Option<Value> {
    Some(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(flag) => Value::Bool(flag),
        Scalar::Integer(number) => Value::Number(number.into()),
        Scalar::FloatingPoint(number) => Value::Number(Number::from_f64(number.into_inner())?),
        Scalar::String(text) => Value::String(text.into_owned()),
    })
}

/// `spec.mappings[3].name` → its steps.
pub(super) fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in field.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        steps.extend(
            pieces.next().filter(|key| !key.is_empty()).map(|key| Step::Key(key.to_owned())),
        );
        steps.extend(
            pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok()).map(Step::Index),
        );
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Value>, SyntaxError> {
        values(text).collect()
    }

    #[test]
    fn two_of_one_key_are_an_error_with_its_line() {
        for text in ["a: 1\nb: 2\na: 3\n", "a:\nb: 2\na: 3\n"] {
            let Err(error) = read(text) else { panic!("accepted") };
            assert_eq!((error.line, error.message.as_str()), (3, "duplicated key in mapping"));
        }
    }

    #[test]
    fn values_are_read_as_yaml_means_them() {
        let text = "s: text\nq: '1'\ni: 1\nf: 1.5\nb: true\nn: ~\nl: [a, ~]\nt: !!str 7\nempty:\nx: &x {k: v, gone: null}\ny: *x\n---\n---\nlast";
        let read = read(text).unwrap_or_else(|error| panic!("{error:?}"));
        let expected = serde_json::json!({
            "s": "text", "q": "1", "i": 1, "f": 1.5, "b": true, "l": ["a", null], "t": "7", "x": {"k": "v"}, "y": {"k": "v"}
        });
        assert_eq!(read, [expected, Value::Null, "last".into()]);
    }

    #[test]
    fn what_is_no_value_of_kubernetes_is_an_error_with_its_line() {
        let deep = format!("\n{}", "[".repeat(65) + &"]".repeat(65));
        let deeper = (1..70).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
            format!("{text}a{n}: &a{n} [*a{}]\n", n - 1)
        });
        let bomb = (1..9).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
            let before = format!("*a{}, ", n - 1).repeat(9);
            format!("{text}a{n}: &a{n} [{before}]\n")
        });
        for (text, line, part) in [
            ("a: 1\n2: x\n", 2, "a key is not a string"),
            ("a: 1\n? [b]\n: x\n", 2, "a key is not a string"),
            ("a: 1\nb: .nan\n", 2, "not a number"),
            ("a: 1\nb: !!int x\n", 2, "not a value"),
            ("a: &a [1]\nb: [*a, *c]\n", 2, ""),
            (deep.as_str(), 2, "nested too deeply"),
            // a63 is 64 deep, and stands in an object.
            (deeper.as_str(), 64, "nested too deeply"),
            (bomb.as_str(), 6, "aliases stand for too much"),
        ] {
            let Err(error) = read(text) else { panic!("accepted: {text}") };
            assert!(error.line == line && error.message.contains(part), "{text}: {error:?}");
        }
    }

    #[test]
    fn nothing_is_read_after_an_error() {
        assert_eq!(values("a: [\n---\nb: 1\n").count(), 1);
    }
}
