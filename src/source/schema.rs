//! A policy of either kind against its schema and its CEL rules: what an API server would do before storing it.

use std::cell::OnceCell;
use std::collections::HashSet;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use kube::core::cel::{self, CompiledSchema};
use serde_json::{Map, Value, json};

use crate::api::{self, CrdKind};
use crate::compile::ObjectKind;

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
/// More problems than this in one object do not help anybody.
const MOST_ERRORS: usize = 50;

/// Lists that may be long. No rule about what they are in looks into them.
const LONG_LISTS: [&str; 2] = ["/spec/oneToOne/mappings", "/spec/manyToOne/mappings"];
/// Items of a long list that are checked together.
const PART: usize = 256;

/// What is wrong with a field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct FieldError {
    pub(super) field: String,
    pub(super) message: String,
}

/// The schemas of certmap's own kinds. Each is made when it is first needed: a few milliseconds, and some megabytes until
/// this is dropped.
#[derive(Default)]
pub(super) struct PolicySchema {
    mapping: OnceCell<KindSchema>,
    route: OnceCell<KindSchema>,
}

impl PolicySchema {
    /// Everything that is wrong with an object, in the order of its fields; of other kinds nothing is known.
    pub(super) fn check(&self, kind: ObjectKind, object: &Value) -> Vec<FieldError> {
        match kind {
            ObjectKind::CertMappingPolicy => self
                .mapping
                .get_or_init(|| KindSchema::new(api::schema(CrdKind::CertMappingPolicy)))
                .check(object),
            ObjectKind::RoutePolicy => self
                .route
                .get_or_init(|| KindSchema::new(api::schema(CrdKind::RoutePolicy)))
                .check(object),
            ObjectKind::ConfigMap
            | ObjectKind::EndpointSlice
            | ObjectKind::Ingress
            | ObjectKind::IngressClass
            | ObjectKind::ReferenceGrant
            | ObjectKind::Secret
            | ObjectKind::Service => Vec::new(),
        }
    }
}

/// The schema of one kind.
struct KindSchema {
    schema: Value,
    structure: Option<Validator>,
    rules: CompiledSchema,
}

impl KindSchema {
    fn new(schema: Value) -> Self {
        let mut closed = schema.clone();
        close(&mut closed);
        // Kubernetes lets an object have these, and says so nowhere in the schema.
        for field in ["apiVersion", "kind", "metadata"] {
            if let Some(properties) = closed.get_mut("properties").and_then(Value::as_object_mut) {
                properties.entry(field).or_insert_with(|| json!({}));
            }
        }
        Self {
            structure: jsonschema::validator_for(&closed).ok(),
            rules: cel::compile_schema(&schema),
            schema,
        }
    }

    /// Everything that is wrong with a policy, in the order of its fields.
    fn check(&self, policy: &Value) -> Vec<FieldError> {
        let Some(structure) = &self.structure else {
            return vec![FieldError {
                field: String::new(),
                message: "the schema itself is broken".to_owned(),
            }];
        };
        let mut errors: Vec<FieldError> = structure
            .iter_errors(policy)
            .take(MOST_ERRORS)
            .flat_map(|e| self.structural(&e))
            .collect();
        duplicates(&self.schema, policy, "", &mut errors);
        if errors.is_empty() {
            self.broken_rules(policy, &mut errors);
        }
        errors
    }

    /// The rules are checked on a part of each long list at a time: their library copies what it checks, once for each
    /// level of it.
    fn broken_rules(&self, policy: &Value, errors: &mut Vec<FieldError>) {
        let mut part = without_long_lists(policy, "");
        self.broken_in(&part, "", 0, errors);
        for list in LONG_LISTS {
            let items =
                policy.pointer(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for (index, items) in items.chunks(PART).enumerate() {
                if let Some(place) = part.pointer_mut(list) {
                    *place = Value::Array(items.to_vec());
                }
                self.broken_in(&part, &field_path(list), index * PART, errors);
            }
            if let Some(place) = part.pointer_mut(list) {
                *place = Value::Array(Vec::new());
            }
        }
    }

    /// Where a part begins with another item than the first of its list, fields are named by the place they really have.
    fn broken_in(&self, part: &Value, list: &str, first: usize, errors: &mut Vec<FieldError>) {
        let broken = cel::Validator::new().validate_compiled(&self.rules, part, None).err();
        for error in broken.into_iter().flat_map(cel::ValidationErrors::into_vec) {
            let field = error.field_path.trim_start_matches('.');
            let error = FieldError { field: moved(field, list, first), message: error.message };
            // What is wrong beside the list is wrong with each part of it.
            if errors.len() < MOST_ERRORS && !errors.contains(&error) {
                errors.push(error);
            }
        }
    }

    fn structural(&self, error: &ValidationError<'_>) -> Vec<FieldError> {
        let field = field_path(error.instance_path().as_str());
        let at = |message: String| FieldError { field: field.clone(), message };
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
                .iter()
                .map(|name| FieldError {
                    field: join(&field, name),
                    message: self.unknown(error.instance_path().as_str(), name),
                })
                .collect(),
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                vec![at(format!("the field {name} is missing: add it"))]
            }
            ValidationErrorKind::Enum { options } => {
                vec![at(format!("not one of the possible values: write one of {options}"))]
            }
            ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => {
                let pattern = self.pattern(error.instance_path().as_str());
                let write = instead(kind.as_str(), error.instance(), pattern);
                vec![at(format!("of the wrong type: write {write}"))]
            }
            ValidationErrorKind::Pattern { pattern } => {
                vec![at(format!("does not have the right form: {}", form(pattern)))]
            }
            ValidationErrorKind::MinItems { limit } => {
                vec![at(format!("has too few entries: write at least {limit}"))]
            }
            ValidationErrorKind::MaxItems { limit } => {
                vec![at(format!("has too many entries: at most {limit}"))]
            }
            ValidationErrorKind::MinLength { .. } => {
                vec![at("is empty: write a value, or remove the field".to_owned())]
            }
            ValidationErrorKind::MaxLength { limit } => {
                vec![at(format!("is too long: at most {limit} characters"))]
            }
            ValidationErrorKind::Minimum { limit } => {
                vec![at(format!("is too small: at least {limit}"))]
            }
            ValidationErrorKind::Maximum { limit } => {
                vec![at(format!("is too large: at most {limit}"))]
            }
            other => vec![at(format!("is not valid ({})", other.keyword()))],
        }
    }

    /// The form of the text that is to stand where a pointer points.
    fn pattern(&self, pointer: &str) -> Option<&str> {
        let (parent, name) = pointer.rsplit_once('/')?;
        properties(&self.schema, parent)?.get(name)?.get("pattern")?.as_str()
    }

    /// Says which known field an unknown one resembles.
    fn unknown(&self, pointer: &str, name: &str) -> String {
        let known = properties(&self.schema, pointer).into_iter().flat_map(Map::keys);
        let nearest = known.map(|known| (distance(known, name), known)).min();
        match nearest {
            Some((distance, known)) if distance <= 3 => {
                format!("no such field: did you mean {known}?")
            }
            _ => {
                "no such field: remove it, or see certmap crds for the fields there are".to_owned()
            }
        }
    }
}

/// `list[2].name` → `list[258].name`, where a part begins with the item 256.
fn moved(field: &str, list: &str, first: usize) -> String {
    let inside = field.strip_prefix(list).and_then(|rest| rest.strip_prefix('['));
    let split = inside.and_then(|rest| rest.split_once(']')).filter(|_| !list.is_empty());
    match split.and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest))) {
        Some((index, rest)) => format!("{list}[{}]{rest}", index + first),
        None => field.to_owned(),
    }
}

fn without_long_lists(value: &Value, pointer: &str) -> Value {
    match value {
        Value::Array(_) if LONG_LISTS.contains(&pointer) => Value::Array(Vec::new()),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    (name.clone(), without_long_lists(value, &format!("{pointer}/{name}")))
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Every object may have its own fields only.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let open = fields.get(PRESERVE) == Some(&Value::Bool(true));
            if fields.get("properties").is_some_and(Value::is_object)
                && fields.get("type") == Some(&json!("object"))
                && !open
            {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Lists that are sets or maps hold each entry once.
fn duplicates(schema: &Value, value: &Value, field: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) =
                    schema.get("properties").and_then(|properties| properties.get(name))
                {
                    duplicates(schema, value, &join(field, name), errors);
                }
            }
        }
        Value::Array(items) => {
            let mut seen = HashSet::new();
            for (index, item) in items.iter().enumerate() {
                let key = key(schema, item);
                if let Some(key) = key.filter(|key| !seen.insert(key.clone())) {
                    let message =
                        format!("{key} occurs before: write it once, under a name of its own");
                    errors.push(FieldError { field: format!("{field}[{index}]"), message });
                }
                if let Some(schema) = schema.get("items") {
                    duplicates(schema, item, &format!("{field}[{index}]"), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn key(list: &Value, item: &Value) -> Option<String> {
    match list.get("x-kubernetes-list-type")?.as_str()? {
        "set" => Some(item.to_string()),
        "map" => {
            let keys = list
                .get("x-kubernetes-list-map-keys")?
                .as_array()?
                .iter()
                .filter_map(Value::as_str);
            let parts: Option<Vec<String>> =
                keys.map(|key| Some(format!("{key} {}", item.get(key)?))).collect();
            parts.map(|parts| parts.join(", "))
        }
        _ => None,
    }
}

/// The fields that may stand where a pointer points.
fn properties<'a>(schema: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    let mut here = schema;
    for token in pointer.split('/').skip(1) {
        here = match here.get("items") {
            Some(items) => items,
            None => here.get("properties")?.get(token)?,
        };
    }
    here.get("properties")?.as_object()
}

/// `/spec/mappings/3/name` → `spec.mappings[3].name`.
fn field_path(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |path, token| {
        if token.bytes().all(|b| b.is_ascii_digit()) {
            format!("{path}[{token}]")
        } else {
            join(&path, token)
        }
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What to write. Of most fields the form is short enough to say it itself.
fn form(pattern: &str) -> String {
    match pattern {
        api::DURATION => "write a duration such as 500ms, 30s, 5m or 1h30m".to_owned(),
        api::LONG_DURATION => "write a second or more, such as 30s, 5m or 1h30m".to_owned(),
        api::QUANTITY => "write octets such as 1048576, 512Ki or 10Mi".to_owned(),
        other => other.to_owned(),
    }
}

/// What to write in place of a value of another type. Of a number it is known what was meant.
fn instead(kind: &str, value: &Value, pattern: Option<&str>) -> String {
    match (kind, value) {
        ("string", Value::Number(number)) => match pattern {
            Some(api::DURATION | api::LONG_DURATION)
                if number.as_u64().is_some_and(|it| (1..100_000).contains(&it)) =>
            {
                format!("{number}s")
            }
            Some(api::DURATION | api::LONG_DURATION) => form(api::DURATION).replace("write ", ""),
            _ => format!("it in quotes: \"{number}\""),
        },
        ("string", Value::Bool(flag)) => format!("it in quotes: \"{flag}\""),
        _ => article(kind),
    }
}

fn article(kind: &str) -> String {
    match kind {
        "integer" | "array" | "object" => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

/// How many letters differ, whatever their case.
pub(super) fn distance(a: &str, b: &str) -> usize {
    strsim::levenshtein(&a.to_lowercase(), &b.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(spec: &Value) -> Vec<String> {
        let policy = json!({"apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy", "metadata": {"name": "p"}, "spec": spec});
        PolicySchema::default()
            .check(ObjectKind::CertMappingPolicy, &policy)
            .into_iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect()
    }

    fn trust() -> Value {
        json!({"caCertificateRefs": [{"kind": "ConfigMap", "name": "ca"}]})
    }

    fn one(spec: &Value, field: &str, part: &str) {
        let found = errors(spec);
        assert!(
            found
                .iter()
                .any(|error| error.starts_with(&format!("{field}: ")) && error.contains(part)),
            "{field} {part}: {found:#?}"
        );
    }

    #[test]
    fn a_whole_policy_passes() {
        let mapping = json!({"name": "a", "sha256": "00".repeat(32), "account": {"userName": "u"}});
        let rule = json!({"certificateField": "Issuer", "certificateSubField": "O", "matchCriteria": "ZeroSSL"});
        let found = errors(&json!({
            "targetRefs": [{"group": "networking.k8s.io", "kind": "Ingress", "name": "i"}],
            "sslFlags": ["Ssl", "SslNegotiateCert", "SslRequireCert"],
            "trust": trust(),
            "oneToOne": {"mappings": [mapping]},
            "manyToOne": {"mappings": [{"name": "m", "rules": [rule], "account": {"secretRef": {"name": "s"}}}]},
            "authentication": [{"basic": {"secretRefs": [{"name": "t"}]}}, {"anonymous": {}}],
            "authorization": {"allow": {"users": ["CORP\\*", "?"]}, "deny": {"groups": ["Guests"]}},
            "forward": {"userHeader": "X-Remote-User", "clientCertificate": ["rfc9440"]},
        }));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn what_makes_no_sense_alone_is_refused_with_what_to_write() {
        one(
            &json!({"sslFlags": ["SslRequireCert"]}),
            "spec.sslFlags",
            "only with SslNegotiateCert",
        );
        one(&json!({"sslFlags": ["SslMapCert"]}), "spec.sslFlags", "only with SslNegotiateCert");
        one(&json!({"sslFlags": ["SslNegotiateCert"]}), "spec.sslFlags", "needs trust");
        one(&json!({"sslFlags": ["None", "Ssl"]}), "spec.sslFlags", "None stands alone");
        one(&json!({"httpsRedirect": true}), "spec", "only with Ssl");
        let basic = json!({"directory": true});
        one(&json!({"authentication": [{"basic": basic}]}), "spec", "needs activeDirectory");
        let url = json!({"urls": ["ldaps://dc1"], "caCertificateRefs": [{"kind": "Secret", "name": "c"}], "bind": {}});
        one(&json!({"activeDirectory": url}), "spec.activeDirectory.bind", "exactly one of");
        one(&json!({"authorization": {"allow": {}}}), "spec.authorization", "names nobody");
        one(
            &json!({"authorization": {"deny": {"users": [""]}}}),
            "spec.authorization.deny.users[0]",
            "",
        );
        let two = json!({"name": "a", "sha256": "00".repeat(32), "certificate": "x", "account": {"userName": "u"}});
        one(
            &json!({"oneToOne": {"mappings": [two]}}),
            "spec.oneToOne.mappings[0]",
            "exactly one of",
        );
        let none = json!({"name": "a", "account": {"userName": "u"}});
        one(
            &json!({"oneToOne": {"mappings": [none]}}),
            "spec.oneToOne.mappings[0]",
            "exactly one of",
        );
        let empty = json!({"name": "m", "rules": [], "account": {"userName": "u"}});
        one(
            &json!({"manyToOne": {"mappings": [empty]}}),
            "spec.manyToOne.mappings[0].rules",
            "at least one rule",
        );
        let nobody = json!({"name": "m", "rules": [{"certificateField": "Issuer", "certificateSubField": "O", "matchCriteria": "x"}]});
        one(
            &json!({"manyToOne": {"mappings": [nobody]}}),
            "spec.manyToOne.mappings[0]",
            "needs an account",
        );
        one(&json!({"authentication": [{"negotiate": {}}]}), "spec.authentication[0]", "reserved");
        one(
            &json!({"authentication": [{"anonymous": {}}, {"anonymous": {}}]}),
            "spec.authentication",
            "listed once",
        );
        one(
            &json!({"forward": {"userHeader": "Cookie"}}),
            "spec.forward.userHeader",
            "header of HTTP",
        );
        one(
            &json!({"forward": {"basicCredentials": true, "passAuthorization": true}}),
            "spec.forward",
            "both fill",
        );
        one(
            &json!({"trust": {"caCertificateRefs": [], "revocation": {}}}),
            "spec.trust.caCertificateRefs",
            "at least 1",
        );
    }

    #[test]
    fn of_a_number_where_text_belongs_it_is_said_how_to_write_it() {
        for (spec, field, write) in [
            (json!({"timeouts": {"request": 60}}), "spec.timeouts.request", "write 60s"),
            (json!({"timeouts": {"idle": 1.5}}), "spec.timeouts.idle", "write a duration such as"),
            (json!({"limits": {"requestBody": 1024}}), "spec.limits.requestBody", "\"1024\""),
            (json!({"rewrite": {"host": true}}), "spec.rewrite.host", "\"true\""),
            (json!({"rewrite": {"host": []}}), "spec.rewrite.host", "write a string"),
            (json!({"timeouts": {"request": []}}), "spec.timeouts.request", "write a string"),
        ] {
            let metadata = json!({"name": "r"});
            let policy = json!({"apiVersion": "certmap.dev/v1alpha1", "kind": "RoutePolicy", "metadata": metadata, "spec": spec});
            let found = PolicySchema::default().check(ObjectKind::RoutePolicy, &policy);
            let error = found.iter().find(|error| error.field == field).unwrap();
            assert!(error.message.contains(write), "{error:?}");
        }
    }

    fn bearer(jwks: &Value, further: &Value) -> Value {
        let mut bearer = json!({"issuer": "https://id.test", "audiences": ["app"], "jwks": jwks});
        for (name, value) in further.as_object().unwrap() {
            bearer[name] = value.clone();
        }
        json!({"authentication": [{"bearer": bearer}]})
    }

    #[test]
    fn tokens_are_signed_by_public_keys_whose_place_is_known() {
        let (field, nothing) = ("spec.authentication[0].bearer", json!({}));
        let held = json!({"ref": {"kind": "ConfigMap", "name": "keys"}});
        let cas = json!([{"kind": "ConfigMap", "name": "ca"}]);
        let published = json!({"url": "https://id.test/keys", "caCertificateRefs": cas});
        for jwks in [&held, &published] {
            assert_eq!(errors(&bearer(jwks, &nothing)), Vec::<String>::new());
        }
        let jwks = format!("{field}.jwks");
        one(&bearer(&json!({}), &nothing), &jwks, "exactly one of url");
        one(&bearer(&json!({"url": "https://id.test/keys"}), &nothing), &jwks, "system's roots");
        let mut both = published.clone();
        both["ref"] = held["ref"].clone();
        one(&bearer(&both, &nothing), &jwks, "exactly one of url");
        for url in ["http://id.test/keys", "https://a@id.test/", "https://id.test/#a", "id.test"] {
            let mut published = published.clone();
            published["url"] = url.into();
            one(&bearer(&published, &nothing), &format!("{jwks}.url"), "");
        }
        for algorithm in ["HS256", "none", "RS1"] {
            let further = json!({"algorithms": [algorithm]});
            one(&bearer(&held, &further), &format!("{field}.algorithms[0]"), "write one of");
        }
        one(&bearer(&held, &json!({"audiences": []})), &format!("{field}.audiences"), "at least 1");
        one(
            &bearer(&held, &json!({"clockSkewSeconds": 301})),
            &format!("{field}.clockSkewSeconds"),
            "300",
        );
        one(
            &bearer(&held, &json!({"certificateBound": "Required"})),
            "spec",
            "only with SslNegotiateCert",
        );
    }

    #[test]
    fn an_external_service_is_told_nothing_that_it_must_not_be() {
        let external = |further: &Value| {
            let mut external = json!({"serviceRef": {"name": "verify", "port": 80}});
            for (name, value) in further.as_object().unwrap() {
                external[name] = value.clone();
            }
            json!({"authentication": [{ "external": external }]})
        };
        let field = "spec.authentication[0].external";
        let usual =
            json!({"requestHeaders": ["Authorization", "Cookie"], "userHeader": "X-Auth-User"});
        assert_eq!(errors(&external(&usual)), Vec::<String>::new());
        for name in ["Host", "Transfer-Encoding", "x-forwarded-for", "Connection", "content-length"]
        {
            let headers = json!({"requestHeaders": [name]});
            one(&external(&headers), &format!("{field}.requestHeaders"), "never sent");
        }
        one(&external(&json!({"groupsHeader": "X-Groups"})), field, "write userHeader too");
        let user = json!({"userHeader": "Content-Type"});
        one(&external(&user), &format!("{field}.userHeader"), "header of HTTP");
        one(&external(&json!({"path": "verify"})), &format!("{field}.path"), "");
        one(&external(&json!({"timeoutSeconds": 0})), &format!("{field}.timeoutSeconds"), "");
    }

    #[test]
    fn what_the_backend_is_told_stands_in_headers_of_its_own() {
        let signed = |header: &str| json!({"keySecretRef": {"name": "k"}, "header": header});
        let whole = json!({
            "userHeader": "X-Remote-User", "userFormat": "DownLevelLogonName", "groupsHeader": "X-Remote-Groups",
            "groupsSeparator": "|", "domain": {"netbios": "CORP", "dns": "corp.example"},
            "clientCertificate": ["traefik", "xfcc"], "signedIdentity": {"keySecretRef": {"name": "k"}, "publish": true},
        });
        assert_eq!(errors(&json!({"forward": whole})), Vec::<String>::new());
        for (field, name) in [
            ("groupsHeader", "Cookie"),
            ("groupsHeader", "X-Forwarded-Tls-Client-Cert-Info"),
            ("userHeader", "ssl-client-verify"),
        ] {
            one(
                &json!({"forward": {field: name}}),
                &format!("spec.forward.{field}"),
                "header of HTTP",
            );
        }
        let header = json!({"forward": {"signedIdentity": signed("Authorization")}});
        one(&header, "spec.forward.signedIdentity.header", "header of HTTP");
        let same = json!({"forward": {"userHeader": "X-User", "groupsHeader": "x-user"}});
        one(&same, "spec.forward", "the same header");
        for field in ["userHeader", "groupsHeader"] {
            let same = json!({"forward": {field: "x-certmap-IDENTITY", "signedIdentity": {"keySecretRef": {"name": "k"}}}});
            one(&same, "spec.forward", "signedIdentity.header is the userHeader");
        }
        for bad in ["", "a", ",,", " ", "é"] {
            let found = errors(&json!({"forward": {"groupsSeparator": bad}}));
            assert!(
                found.iter().all(|error| error.contains("spec.forward.groupsSeparator"))
                    && !found.is_empty(),
                "{bad}: {found:?}"
            );
        }
        for lifetime in [4, 601] {
            let signed = json!({"keySecretRef": {"name": "k"}, "lifetimeSeconds": lifetime});
            one(
                &json!({"forward": {"signedIdentity": signed}}),
                "spec.forward.signedIdentity.lifetimeSeconds",
                "",
            );
        }
    }

    #[test]
    fn a_slip_in_a_long_list_has_its_place() {
        let mapping = |number: usize| json!({"name": format!("m{number}"), "sha256": format!("{number:064x}"), "account": {"userName": "u"}});
        let mut mappings: Vec<Value> = (0..PART * 2 + 9).map(mapping).collect();
        mappings[PART * 2 + 3]["certificate"] = "x".into();
        mappings[7].as_object_mut().unwrap().remove("sha256");
        let found =
            errors(&json!({"sslFlags": ["None", "Ssl"], "oneToOne": {"mappings": mappings}}));
        let fields: Vec<&str> = found.iter().filter_map(|error| error.split(": ").next()).collect();
        let late = format!("spec.oneToOne.mappings[{}]", PART * 2 + 3);
        assert_eq!(fields, ["spec.sslFlags", "spec.oneToOne.mappings[7]", &late], "{found:?}");
    }

    /// They are checked without what is in those lists.
    #[test]
    fn no_rule_about_more_than_a_mapping_looks_into_a_long_list() {
        fn look(schema: &Value, pointer: &str) {
            if LONG_LISTS.iter().any(|list| list.starts_with(pointer)) {
                let rules = schema["x-kubernetes-validations"].as_array();
                let rules = rules.into_iter().flatten().map(|rule| rule["rule"].to_string());
                for rule in rules {
                    assert!(!LONG_LISTS.contains(&pointer), "{pointer}: {rule}");
                    for name in ["oneToOne", "manyToOne", "mappings"] {
                        assert!(!rule.contains(name), "{pointer}: {rule}");
                    }
                }
            }
            for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                look(schema, &format!("{pointer}/{name}"));
            }
        }
        look(&api::schema(CrdKind::CertMappingPolicy), "");
    }

    #[test]
    fn names_occur_once() {
        let mapping = |name: &str| json!({"name": name, "sha256": "00".repeat(32), "account": {"userName": "u"}});
        one(
            &json!({"oneToOne": {"mappings": [mapping("a"), mapping("a")]}}),
            "spec.oneToOne.mappings[1]",
            "name \"a\" occurs before",
        );
    }

    #[test]
    fn slips_are_named_with_their_field() {
        one(&json!({"sslflags": []}), "spec.sslflags", "did you mean sslFlags?");
        one(&json!({"sslFlags": ["SSL"]}), "spec.sslFlags[0]", "write one of");
        one(
            &json!({"oneToOne": {"mappings": [{"name": "a", "sha256": "00", "account": {"username": "u"}}]}}),
            "spec.oneToOne.mappings[0].account.username",
            "did you mean userName?",
        );
        one(&json!({"oneToOne": {"enabled": "yes"}}), "spec.oneToOne.enabled", "write a boolean");
        one(&json!({"trust": {}}), "spec.trust", "caCertificateRefs is missing");
    }
}
