//! One file's text → the objects in it.

use std::cell::OnceCell;
use std::collections::HashMap;

use serde_json::Value;

use super::document::{Step, SyntaxError, steps, values};
use super::lines::Lines;
use super::reading::{Reading, salvage, typed};
use super::schema::{PolicySchema, distance};
use crate::api::GROUP;
use crate::compile::{ObjectKind, ObjectName, ObjectRef};

/// Something wrong in a file.
#[derive(Clone, Debug)]
pub(super) struct ReadProblem {
    pub(super) line: usize,
    pub(super) object: Option<ObjectRef>,
    pub(super) field: String,
    pub(super) message: String,
}

impl From<SyntaxError> for ReadProblem {
    fn from(error: SyntaxError) -> Self {
        let message =
            format!("not valid YAML: {}; what was read before stays in force", error.message);
        Self { line: error.line, object: None, field: String::new(), message }
    }
}

/// Reads every object of the kinds that certmap uses.
///
/// # Errors
/// The text as a whole cannot be read: nothing can be said of its objects.
pub(super) fn read(
    text: &str,
    schema: &PolicySchema,
) -> Result<(Vec<Reading>, Vec<ReadProblem>), ReadProblem> {
    let lines = OnceCell::new();
    let (mut readings, mut problems) = (Vec::new(), Vec::new());
    for (index, value) in values(text).enumerate() {
        for (path, value) in flatten(value?, Vec::new()) {
            let line = |field: &str| {
                let path = [path.clone(), steps(field)].concat();
                lines.get_or_init(|| Lines::of(text)).line(index, &path)
            };
            let located =
                |problem: ReadProblem| ReadProblem { line: line(&problem.field), ..problem };
            let (reading, found) = read_object(value, schema).map_err(located)?;
            problems.extend(found.into_iter().map(located));
            readings.extend(reading);
        }
    }
    Ok((readings, problems))
}

/// Where each object of a text stands, and each of its fields.
pub(super) struct Places {
    /// Their documents, and the paths to them there.
    objects: HashMap<ObjectRef, (usize, Vec<Step>)>,
    lines: Lines,
}

impl Places {
    pub(super) fn of(text: &str) -> Self {
        let mut objects = HashMap::new();
        for (index, value) in values(text).map_while(Result::ok).enumerate() {
            for (path, value) in flatten(value, Vec::new()) {
                if let Ok(Meant::This(object) | Meant::Almost(object, _)) = meant(&value) {
                    objects.entry(object).or_insert((index, path));
                }
            }
        }
        Self { objects, lines: Lines::of(text) }
    }

    /// The line of an object's field.
    pub(super) fn line(&self, object: &ObjectRef, field: &str) -> Option<usize> {
        let (index, path) = self.objects.get(object)?;
        Some(self.lines.line(*index, &[path.clone(), steps(field)].concat()))
    }
}

/// The objects of a document: itself, or the items of a list.
fn flatten(value: Value, path: Vec<Step>) -> Vec<(Vec<Step>, Value)> {
    let is_list =
        value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match value {
        Value::Null => Vec::new(),
        Value::Object(mut fields)
            if is_list && fields.get("items").is_some_and(Value::is_array) =>
        {
            let Some(Value::Array(items)) = fields.remove("items") else { return Vec::new() };
            let item_path = |index| {
                [path.clone(), vec![Step::Key("items".to_owned()), Step::Index(index)]].concat()
            };
            items
                .into_iter()
                .enumerate()
                .flat_map(|(index, item)| flatten(item, item_path(index)))
                .collect()
        }
        other => vec![(path, other)],
    }
}

fn problem(object: Option<ObjectRef>, field: &str, message: impl Into<String>) -> ReadProblem {
    ReadProblem { line: 0, object, field: field.to_owned(), message: message.into() }
}

/// # Errors
/// It cannot be said which object it is.
fn read_object(
    value: Value,
    schema: &PolicySchema,
) -> Result<(Option<Reading>, Vec<ReadProblem>), ReadProblem> {
    let object = match meant(&value)? {
        Meant::This(object) => object,
        Meant::Almost(object, problem) => {
            let targets = salvage(&value);
            return Ok((Some(Reading::Broken { object, targets }), vec![problem]));
        }
        Meant::Other => return Ok((None, Vec::new())),
    };
    let targets = salvage(&value);
    let problems: Vec<ReadProblem> = schema
        .check(object.kind, &value)
        .into_iter()
        .map(|error| problem(Some(object.clone()), &error.field, error.message))
        .collect();
    let broken = Reading::Broken { object: object.clone(), targets };
    if !problems.is_empty() {
        return Ok((Some(broken), problems));
    }
    Ok(match typed(&object, value) {
        Ok(object) => (Some(Reading::Object(object)), problems),
        Err((field, message)) => (Some(broken), vec![problem(Some(object), &field, message)]),
    })
}

/// Which object this is meant to be.
enum Meant {
    /// None that certmap reads.
    Other,
    This(ObjectRef),
    /// This one, but for its apiVersion or kind.
    Almost(ObjectRef, ReadProblem),
}

/// # Errors
/// It cannot be said which object it is.
fn meant(value: &Value) -> Result<Meant, ReadProblem> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let (version, kind) =
        (text("/apiVersion").unwrap_or_default(), text("/kind").unwrap_or_default());
    let Some((known, expected)) = known_kind(version, kind) else {
        if version.is_empty() || kind.is_empty() {
            return Err(problem(None, "", "not a Kubernetes object: it needs apiVersion and kind"));
        }
        return Ok(Meant::Other);
    };
    let Some(name) = text("/metadata/name").filter(|name| !name.is_empty()) else {
        return Err(problem(
            None,
            "metadata.name",
            format!("a {known} needs a name: write metadata.name"),
        ));
    };
    let namespace = text("/metadata/namespace").unwrap_or("default");
    let namespace = if known.is_namespaced() { namespace } else { "" };
    let object = ObjectRef { kind: known, name: ObjectName::new(namespace, name) };
    let wrong = |field, message| {
        Meant::Almost(object.clone(), problem(Some(object.clone()), field, message))
    };
    Ok(if kind != known.to_string() {
        wrong("kind", format!("there is no kind {kind}: write {known}"))
    } else if version != expected && known != ObjectKind::ReferenceGrant {
        wrong("apiVersion", format!("{version} is not supported: write {expected}"))
    } else {
        Meant::This(object)
    })
}

/// The kind that is meant, and its apiVersion. A policy is known by a slip of the pen too: passed over, it would open what
/// it is to close.
fn known_kind(version: &str, kind: &str) -> Option<(ObjectKind, &'static str)> {
    let (group, _) = version.split_once('/').unwrap_or(("", version));
    Some(match (group, kind) {
        ("networking.k8s.io", "Ingress") => (ObjectKind::Ingress, "networking.k8s.io/v1"),
        ("networking.k8s.io", "IngressClass") => (ObjectKind::IngressClass, "networking.k8s.io/v1"),
        ("discovery.k8s.io", "EndpointSlice") => (ObjectKind::EndpointSlice, "discovery.k8s.io/v1"),
        ("", "ConfigMap") => (ObjectKind::ConfigMap, "v1"),
        ("", "Secret") => (ObjectKind::Secret, "v1"),
        ("", "Service") => (ObjectKind::Service, "v1"),
        ("gateway.networking.k8s.io", "ReferenceGrant") => {
            (ObjectKind::ReferenceGrant, "gateway.networking.k8s.io/v1beta1")
        }
        (group, kind) => (policy_kind(group, kind)?, "certmap.dev/v1alpha1"),
    })
}

/// Which of certmap's own kinds is meant. Others may have a RoutePolicy too.
fn policy_kind(group: &str, kind: &str) -> Option<ObjectKind> {
    let to_mapping = distance(kind, "CertMappingPolicy");
    let to_route = distance(kind, "RoutePolicy");
    let is_ours = group.is_empty() || distance(group, GROUP) <= 3;
    if to_route < to_mapping && (group == GROUP || is_ours && to_route <= 3) {
        Some(ObjectKind::RoutePolicy)
    } else {
        (group == GROUP || to_mapping <= 4).then_some(ObjectKind::CertMappingPolicy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Object;

    fn read_ok(text: &str) -> (Vec<Reading>, Vec<ReadProblem>) {
        read(text, &PolicySchema::default()).unwrap_or_else(|problem| panic!("{problem:?}"))
    }

    #[test]
    fn lists_and_documents_are_flattened_and_other_kinds_passed_over() {
        let text = "kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: b}}\n---\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: n}\nstringData: {password: x}\n";
        let (readings, problems) = read_ok(text);
        assert!(problems.is_empty(), "{problems:?}");
        let names: Vec<String> = readings
            .iter()
            .map(|reading| match reading {
                Reading::Object(object) => object.reference().to_string(),
                Reading::Broken { object, .. } => format!("broken {object}"),
            })
            .collect();
        assert_eq!(names, ["Service default/a", "Secret n/s"]);
        let Reading::Object(Object::Secret(secret)) = &readings[1] else { panic!("no secret") };
        assert_eq!(secret.data.as_ref().unwrap()["password"].0, b"x");
    }

    #[test]
    fn a_broken_policy_still_says_what_it_targets_and_where_it_is_broken() {
        let text = "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {name: p, namespace: web}\nspec:\n  targetRefs:\n  - {group: networking.k8s.io, kind: Ingress, name: shop}\n  sslFlags: [Ssl]\n  oneToOne:\n    mappings:\n    - name: a\n      accont: {}\n";
        let (readings, problems) = read_ok(text);
        assert!(
            matches!(&readings[..], [Reading::Broken { targets, .. }] if targets.names == ["shop"] && !targets.partial)
        );
        let slip = problems
            .iter()
            .find(|problem| problem.field == "spec.oneToOne.mappings[0].accont")
            .unwrap();
        assert_eq!(
            (slip.line, slip.message.as_str()),
            (11, "no such field: did you mean account?")
        );
    }

    #[test]
    fn a_slip_in_its_kind_does_not_make_a_policy_nobody() {
        let policy = "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{name: shop}]}\n";
        for (good, slip) in [
            ("v1alpha1", "v1beta1"),
            ("certmap.dev", "certmap.io"),
            ("CertMappingPolicy", "CertMapingPolicy"),
            ("kind: CertMapping", "kind: Mapping"),
            ("apiVersion", "apiversion"),
        ] {
            let (readings, problems) = read_ok(&policy.replace(good, slip));
            assert!(
                matches!(&readings[..], [Reading::Broken { targets, .. }] if targets.names == ["shop"] && !targets.partial),
                "{slip}"
            );
            assert_eq!(problems.len(), 1, "{slip}");
        }
        for (good, slip) in [("name: p", "nmae: p"), ("kind: ", "knid: ")] {
            let text = policy.replace(good, slip).replace(
                "certmap.dev/v1alpha1",
                if good == "kind: " { "example.org/v1" } else { "certmap.dev/v1alpha1" },
            );
            assert!(
                read(&text, &PolicySchema::default()).is_err(),
                "nothing can be said of the file: {slip}"
            );
        }
    }

    #[test]
    fn a_slip_in_the_kind_of_a_route_policy_neither_and_others_have_one_too() {
        let policy = "apiVersion: certmap.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {name: r}\nspec: {targetRefs: [{name: shop}]}\n";
        for (good, slip) in [
            ("v1alpha1", "v1beta1"),
            ("certmap.dev", "certmap.de"),
            ("RoutePolicy", "RoutingPolicy"),
            ("apiVersion", "apiversion"),
        ] {
            let (readings, problems) = read_ok(&policy.replace(good, slip));
            let [Reading::Broken { object, targets }] = &readings[..] else { panic!("{slip}") };
            assert_eq!(object.kind, ObjectKind::RoutePolicy, "{slip}");
            assert_eq!((&*targets.names, problems.len()), (&["shop".to_owned()][..], 1), "{slip}");
        }
        let (readings, problems) = read_ok(&policy.replace("certmap.dev", "mesh.example.org"));
        assert!(readings.is_empty() && problems.is_empty());
    }

    #[test]
    fn a_secret_that_is_not_base64_is_not_quoted() {
        let text =
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  password: hunter2!\n";
        let (_, problems) = read_ok(text);
        assert_eq!((problems[0].line, problems[0].field.as_str()), (5, "data.password"));
        assert!(!problems[0].message.contains("hunter2"));
    }
}
