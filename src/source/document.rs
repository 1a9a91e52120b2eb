//! YAML text → values, and the line of each field.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::{Map, Number, Value};

/// Deeper nesting is no Kubernetes object.
const DEEPEST: usize = 64;

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

/// The documents of a file.
pub(super) struct Documents<'a>(Vec<MarkedYaml<'a>>);

impl<'a> Documents<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, SyntaxError> {
        MarkedYaml::load_from_str(text).map(Self).map_err(|error| SyntaxError {
            line: error.marker().line(),
            message: error.info().to_owned(),
        })
    }

    /// The value of each document, nulls left out: to Kubernetes, null and absent are one.
    pub(super) fn values(&self) -> impl Iterator<Item = Result<Value, SyntaxError>> {
        self.0.iter().map(|document| value(document, DEEPEST))
    }

    /// The line of a field, or of what is left of its path.
    pub(super) fn line(&self, document: usize, path: &[Step]) -> usize {
        let Some(mut node) = self.0.get(document) else { return 1 };
        let mut line = node.span.start.line();
        for step in path {
            let Some((found_line, child)) = child(node, step) else { break };
            (line, node) = (found_line, child);
        }
        line.max(1)
    }
}

fn child<'n, 'a>(node: &'n MarkedYaml<'a>, step: &Step) -> Option<(usize, &'n MarkedYaml<'a>)> {
    match (&node.data, step) {
        (YamlData::Mapping(fields), Step::Key(key)) => {
            let (key, value) = fields.iter().find(|(name, _)| text(name) == Some(key.as_str()))?;
            Some((key.span.start.line(), value))
        }
        (YamlData::Sequence(items), Step::Index(index)) => {
            let item = items.get(*index)?;
            Some((item.span.start.line(), item))
        }
        _ => None,
    }
}

fn text<'n>(node: &'n MarkedYaml<'_>) -> Option<&'n str> {
    match &node.data {
        YamlData::Value(Scalar::String(text)) => Some(text),
        _ => None,
    }
}

fn value(node: &MarkedYaml<'_>, depth: usize) -> Result<Value, SyntaxError> {
    let error =
        |message: &str| SyntaxError { line: node.span.start.line(), message: message.to_owned() };
    let deeper = depth.checked_sub(1).ok_or_else(|| error("nested too deeply"))?;
    match &node.data {
        YamlData::Value(scalar) => {
            scalar_value(scalar).ok_or_else(|| error("not a number that JSON can hold"))
        }
        YamlData::Sequence(items) => {
            items.iter().map(|item| value(item, deeper)).collect::<Result<_, _>>().map(Value::Array)
        }
        YamlData::Mapping(fields) => {
            let mut object = Map::new();
            for (key, field) in fields {
                let key =
                    text(key).ok_or_else(|| error("a key is not a string: put it in quotes"))?;
                let field = value(field, deeper)?;
                if !field.is_null() {
                    object.insert(key.to_owned(), field);
                }
            }
            Ok(Value::Object(object))
        }
        YamlData::Tagged(_, inner) => value(inner, deeper),
        YamlData::Representation(..) | YamlData::Alias(_) | YamlData::BadValue => {
            Err(error("not a value"))
        }
    }
}

fn scalar_value(scalar: &Scalar<'_>) -> Option<Value> {
    Some(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(flag) => Value::Bool(*flag),
        Scalar::Integer(number) => Value::Number((*number).into()),
        Scalar::FloatingPoint(number) => Value::Number(Number::from_f64(number.into_inner())?),
        Scalar::String(text) => Value::String(text.to_string()),
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_has_the_line_of_its_key() {
        let text = "a: 1\n---\nspec:\n  mappings:\n  - name: x\n    deep: {k: v}\n  - name: y\n";
        let documents = Documents::parse(text).unwrap_or_else(|error| panic!("{error:?}"));
        for (field, line) in [
            ("spec", 3),
            ("spec.mappings[1].name", 7),
            ("spec.mappings[0].deep.k", 6),
            ("spec.gone", 3),
        ] {
            assert_eq!(documents.line(1, &steps(field)), line, "{field}");
        }
    }

    #[test]
    fn two_of_one_key_are_an_error_with_its_line() {
        let Err(error) = Documents::parse("a: 1\nb: 2\na: 3\n") else { panic!("accepted") };
        assert_eq!(error.line, 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[-a-z:{}\\[\\]\"'&*!|>?%@#, \n]{0,60}") {
            if let Ok(documents) = Documents::parse(&text) {
                documents.values().for_each(drop);
            }
        }
    }
}
