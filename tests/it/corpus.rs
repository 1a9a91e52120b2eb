//! The decision corpus: `tests/cases/*.yaml`, each a policy, requests, and the answers with their traces.
//!
//! `@NAME.base64@`, `@NAME.pem@`, `@NAME.sha256@` and `@NAME.x5t@` stand for the certificates below; a case's `at` is in
//! days from now, and so are the times in its token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certmap::app;
use certmap::auth::{
    Answer, Answers, Asked, Credentials, DirectoryAccount, DirectoryAnswer, DirectoryGroup,
    Filetime, Question,
};
use certmap::compile::{Reuse, compile};
use certmap::identity::{Fingerprint, PeerCertificate};
use certmap::policy::{ClientCertificate, Decision, Permit, Subject, decide};
use certmap::snapshot::HostName;
use certmap::source::Directory;
use http::{HeaderMap, StatusCode};
use rcgen::{
    BasicConstraints, CustomExtension, DnType, DnValue, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, NameConstraints, SanType,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::support::manifests::{basic_secret, config_map, ingress, policy, service};
use super::support::pki::{Ca, Identity, leaf, named, pem, validity};
use super::support::tokens::{Issuer, key_set, thumbprint};
use super::support::write_whole;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    manifests: String,
    spec: String,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// One of the certificates below; none if left out.
    certificate: Option<String>,
    #[serde(default)]
    http: bool,
    /// user:password, or a whole Authorization value with a space in it.
    authorization: Option<String>,
    /// Or claims of a token besides the usual ones, with the name of the key that signs it as `key`.
    token: Option<Map<String, Value>>,
    /// What an external service answers, when it is asked.
    external: Option<Said>,
    #[serde(default)]
    at: i64,
    #[serde(default = "host")]
    host: String,
    code: String,
    account: Option<String>,
    mechanism: Option<String>,
    mapping: Option<String>,
    #[serde(default)]
    redirect: bool,
    /// What the directory holds, whatever it is asked.
    #[serde(default)]
    accounts: Vec<Entry>,
    /// Each must be a line of the trace.
    #[serde(default)]
    trace: Vec<String>,
}

/// Status, and the values of X-Auth-User and X-Auth-Groups.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    status: u16,
    user: Option<String>,
    groups: Option<String>,
}

/// An account of the directory CORP, corp.example.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    mappings: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    disabled: bool,
    /// In days from now.
    #[serde(default)]
    created: i64,
    /// The only one that is right.
    password: Option<String>,
}

impl Case {
    fn directory(&self, asked: &Asked) -> DirectoryAnswer {
        let account = |entry: &Entry| DirectoryAccount {
            dn: format!("CN={},DC=corp,DC=example", entry.name).into(),
            name: entry.name.as_str().into(),
            domain: Some("CORP".into()),
            dns_domain: Some("corp.example".into()),
            upn: Some(format!("{}@corp.example", entry.name).into()),
            sid: format!("S-1-5-21-1-2-3-{}", entry.name.len()).into(),
            alt_security_identities: entry.mappings.iter().map(|it| it.as_str().into()).collect(),
            control: Some(if entry.disabled { 0x202 } else { 0x200 }),
            computed: Some(0),
            expires: Some(Filetime(0)),
            password_set: None,
            created: Some(UnixTime::now().as_secs() as i64 + entry.created * 86_400),
            groups: entry
                .groups
                .iter()
                .map(|name| DirectoryGroup {
                    sid: "S-1-5-21-9".into(),
                    name: Some(name.as_str().into()),
                })
                .collect(),
        };
        let accounts: Vec<DirectoryAccount> = self.accounts.iter().map(account).collect();
        let mut answer =
            DirectoryAnswer { accounts: accounts.into(), ..DirectoryAnswer::default() };
        if let Asked::Logon(name, password) = asked {
            let found = name.account(&answer).ok().flatten().map(|account| account.name.clone());
            let entry = self.accounts.iter().find(|entry| Some(&*entry.name) == found.as_deref());
            let right = entry.and_then(|entry| entry.password.as_ref());
            answer.password_right = right == Some(password.expose());
        }
        answer
    }
}

fn host() -> String {
    "app.test".to_owned()
}

/// Everybody whom the cases know.
struct People {
    authorities: BTreeMap<&'static str, Vec<u8>>,
    people: BTreeMap<&'static str, Identity>,
    /// Keys of tokens: `published` stands in ConfigMap `keys`, the others do not.
    issuers: BTreeMap<&'static str, Issuer>,
}

fn people() -> People {
    let (zerossl, contoso, other) = (Ca::new("ZeroSSL"), Ca::new("Contoso"), Ca::new("Fabrikam"));
    let sub = zerossl.intermediate("ZeroSSL Sub", 1);
    let deep = sub.intermediate("ZeroSSL Deep", 2);
    let mut constrained = Ca::params("Constrained");
    let permitted = GeneralSubtree::DnsName("good.test".to_owned());
    constrained.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![permitted],
        excluded_subtrees: Vec::new(),
    });
    let constrained = Ca::from_params(constrained);
    let mut old = Ca::params("Old");
    validity(&mut old, -900, -5);
    let old = Ca::from_params(old);
    let mut all: BTreeMap<&'static str, Identity> = BTreeMap::new();
    let with =
        |params: &mut rcgen::CertificateParams, san: SanType| params.subject_alt_names.push(san);
    let mut mail = |name: &'static str, addresses: &[&str], ca: &Ca| {
        let mut params = leaf("Mail");
        for address in addresses {
            with(&mut params, SanType::Rfc822Name((*address).try_into().unwrap()));
        }
        all.insert(name, ca.issue(params));
    };
    mail("mail", &["alice@good.test"], &zerossl);
    mail("two-mails", &["alice@good.test", "bob@good.test"], &zerossl);
    for (name, host) in
        [("constrained-good", "laptop.good.test"), ("constrained-bad", "laptop.evil.test")]
    {
        let mut params = leaf("Laptop");
        params.subject_alt_names.push(SanType::DnsName(host.try_into().unwrap()));
        all.insert(name, constrained.issue(params));
    }
    all.insert("alice", zerossl.issue(leaf("Alice")));
    all.insert("renewed-alice", zerossl.issue(leaf("Alice")));
    all.insert(
        "bob",
        contoso.issue(named(&[
            (DnType::CountryName, "US".into()),
            (DnType::StateOrProvinceName, "WA".into()),
            (DnType::LocalityName, "Redmond".into()),
            (DnType::OrganizationName, "Contoso, Ltd.".into()),
            (DnType::OrganizationalUnitName, "HR".into()),
            (DnType::CustomDnType(vec![2, 5, 4, 12]), "Director".into()),
            (DnType::CustomDnType(vec![2, 5, 4, 42]), "Bob".into()),
            (DnType::CustomDnType(vec![2, 5, 4, 4]), "Builder".into()),
            (DnType::CustomDnType(vec![2, 5, 4, 43]), "BB".into()),
            (DnType::CustomDnType(vec![2, 5, 4, 5]), "A-17".into()),
            (
                DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]),
                DnValue::Ia5String("bob@contoso.test".try_into().unwrap()),
            ),
            (
                DnType::CustomDnType(vec![0, 9, 2342, 19200300, 100, 1, 25]),
                DnValue::Ia5String("contoso".try_into().unwrap()),
            ),
            (DnType::CustomDnType(vec![0, 9, 2342, 19200300, 100, 1, 1]), "bob1".into()),
            (DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 7]), "blue".into()),
            (DnType::CommonName, "Bob Builder".into()),
        ])),
    );
    all.insert("stranger", other.issue(leaf("Alice")));
    all.insert("self-signed", Identity::self_signed(leaf("Alice")));
    all.insert(
        "impostor",
        Identity::self_signed(named(&[
            (DnType::OrganizationName, "ZeroSSL".into()),
            (DnType::CommonName, "ZeroSSL CA 0".into()),
        ])),
    );
    let mut expired = leaf("Edgar");
    validity(&mut expired, -30, -1);
    all.insert("expired", zerossl.issue(expired));
    let mut future = leaf("Fay");
    validity(&mut future, 5, 30);
    all.insert("future", zerossl.issue(future));
    let mut stale = leaf("Alice");
    validity(&mut stale, -30, -1);
    all.insert("expired-stranger", other.issue(stale));
    let mut server = leaf("Server");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    all.insert("server", zerossl.issue(server));
    let mut any = leaf("Any");
    any.extended_key_usages = Vec::new();
    all.insert("no-eku", zerossl.issue(any));
    let mut authority = leaf("Boss");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    all.insert("ca-as-client", zerossl.issue(authority));
    let mut critical = leaf("Critical");
    let mut extension =
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    critical.custom_extensions.push(extension);
    all.insert("unknown-critical", zerossl.issue(critical));
    all.insert("by-sub", sub.issue(leaf("Sue")).with(&[sub.der()]));
    all.insert("by-sub-bare", sub.issue(leaf("Sue")));
    all.insert("by-deep", deep.issue(leaf("Dee")).with(&[deep.der(), sub.der()]));
    all.insert("by-deep-crossed", deep.issue(leaf("Dee")).with(&[sub.der(), deep.der()]));
    all.insert(
        "with-strangers",
        zerossl.issue(leaf("Alice")).with(&[other.der(), other.issue(leaf("X")).der]),
    );
    let mut olga = leaf("Olga");
    validity(&mut olga, -30, 30);
    all.insert("by-old", old.issue(olga));
    all.insert("comma", zerossl.issue(leaf("x,CN=admin")));
    all.insert("nul", zerossl.issue(leaf("admin\0x")));
    all.insert("newline", zerossl.issue(leaf("admin\nx")));
    all.insert(
        "bmp",
        zerossl
            .issue(named(&[(DnType::CommonName, DnValue::BmpString("admin".try_into().unwrap()))])),
    );
    all.insert("upper", zerossl.issue(leaf("ADMIN")));
    all.insert("admin", zerossl.issue(leaf("admin")));
    all.insert("umlaut", zerossl.issue(leaf("Jürgen Groß")));
    all.insert("no-name", zerossl.issue(named(&[])));
    all.insert(
        "two-names",
        zerossl.issue(named(&[
            (DnType::CommonName, "guest".into()),
            (DnType::CustomDnType(vec![2, 5, 4, 3]), "admin".into()),
        ])),
    );
    all.insert(
        "two-units",
        zerossl.issue(named(&[
            (DnType::OrganizationalUnitName, "Sales".into()),
            (DnType::CustomDnType(vec![2, 5, 4, 11]), "Admins".into()),
            (DnType::CommonName, "Uma".into()),
        ])),
    );
    let authorities = BTreeMap::from([
        ("zerossl", zerossl.der()),
        ("contoso", contoso.der()),
        ("other", other.der()),
        ("sub", sub.der()),
        ("constrained", constrained.der()),
        ("old", old.der()),
    ]);
    // The impostor says that it is the published one.
    let issuers = [("published", "a"), ("impostor", "a"), ("unknown", "b")];
    let issuers = issuers.map(|(name, id)| (name, Issuer::new(id)));
    People { authorities, people: all, issuers: BTreeMap::from(issuers) }
}

impl Said {
    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap()
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-auth-user", &self.user), ("x-auth-groups", &self.groups)] {
            if let Some(value) = value {
                headers.append(name, value.parse().unwrap());
            }
        }
        headers
    }
}

impl People {
    /// A whole Authorization value.
    fn token(&self, claims: &Map<String, Value>) -> String {
        let mut claims = claims.clone();
        let key = claims.remove("key");
        let key = key.as_ref().map_or("published", |key| key.as_str().unwrap());
        let filled = self.fill(&Value::Object(claims).to_string());
        let mut claims: Value = serde_json::from_str(&filled).unwrap();
        for name in ["exp", "nbf"] {
            if let Some(days) = claims.get(name).and_then(Value::as_i64) {
                claims[name] = (UnixTime::now().as_secs() as i64 + days * 86_400).into();
            }
        }
        format!("Bearer {}", self.issuers[key].token(&claims))
    }

    fn fill(&self, text: &str) -> String {
        let ders = self.authorities.iter().map(|(name, der)| (*name, der));
        let mut text = text.to_owned();
        for (name, der) in
            ders.chain(self.people.iter().map(|(name, identity)| (*name, &identity.der)))
        {
            text = text.replace(&format!("@{name}.base64@"), &base64(der));
            text = text.replace(&format!("@{name}.sha256@"), &Fingerprint::of(der).to_string());
            text = text.replace(&format!("@{name}.x5t@"), &thumbprint(der));
            text = text.replace(&format!("@{name}.pem@"), &pem(der).replace('\n', "\\n"));
        }
        text
    }

    /// The usual world: trust in every CA but `other`, two accounts, one host.
    fn world(&self, group: &Group) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| write_whole(&directory.path().join(name), &text);
        let bundle = |names: &[&str]| {
            names.iter().map(|name| pem(&self.authorities[name])).collect::<String>()
        };
        write(
            "ca.yaml",
            config_map("ca", "ca.crt", &bundle(&["zerossl", "contoso", "constrained", "old"])),
        );
        let keys = key_set(&[&self.issuers["published"]]);
        write("keys.yaml", config_map("keys", "jwks.json", &keys));
        write("zerossl.yaml", config_map("zerossl", "ca.crt", &bundle(&["zerossl"])));
        write(
            "accounts.yaml",
            format!(
                "{}---\n{}",
                basic_secret("azureuser", "azureuser", "pw1"),
                basic_secret("test", "test", "pw2")
            ),
        );
        write("app.yaml", ingress("app", "app.test", "/", "echo"));
        write("echo.yaml", service("echo", &[1]));
        write("policy.yaml", self.fill(&policy("app", "app", &group.spec)));
        if !group.manifests.is_empty() {
            write("more.yaml", self.fill(&group.manifests));
        }
        directory
    }
}

fn base64(der: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(der)
}

fn groups(text: &str) -> Vec<Group> {
    use saphyr::LoadableYamlNode;
    let documents = saphyr::Yaml::load_from_str(text).unwrap();
    documents
        .iter()
        .filter(|document| !document.is_null())
        .map(|document| serde_json::from_value(json(document)).unwrap())
        .collect()
}

fn json(yaml: &saphyr::Yaml<'_>) -> Value {
    use saphyr::{Scalar, Yaml};
    match yaml {
        Yaml::Value(Scalar::Boolean(flag)) => (*flag).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::String(text)) => text.to_string().into(),
        Yaml::Sequence(items) => items.iter().map(json).collect(),
        Yaml::Mapping(fields) => fields
            .iter()
            .map(|(key, value)| (key.as_str().unwrap().to_owned(), json(value)))
            .collect(),
        other => panic!("unexpected in a case: {other:?}; put codes in quotes"),
    }
}

/// Code, permit, trace.
fn answer(
    case: &Case,
    people: &People,
    snapshot: &certmap::snapshot::Snapshot,
) -> (String, Option<Permit>, bool, Vec<String>) {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(
        (UnixTime::now().as_secs() as i64 + case.at * 86_400) as u64,
    ));
    let certificate = case.certificate.as_ref().map(|name| {
        let identity =
            people.people.get(name.as_str()).unwrap_or_else(|| panic!("nobody is called {name}"));
        let chain: Vec<CertificateDer<'_>> =
            identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        ClientCertificate::new(PeerCertificate::parse(&chain))
    });
    let token = case.token.as_ref().map(|claims| people.token(claims));
    let credentials = case.authorization.as_ref().or(token.as_ref()).map(|text| {
        let value = if text.contains(' ') {
            text.clone()
        } else {
            format!("Basic {}", base64(text.as_bytes()))
        };
        Credentials::parse(value.as_bytes())
    });
    let host = snapshot.hosts.resolve(HostName::parse(&case.host).as_ref()).unwrap();
    let guard = &host.route("/").unwrap().guard;
    let (request, mut answers) = (Arc::default(), Answers::default());
    loop {
        let subject = Subject {
            https: !case.http,
            cipher_bits: if case.http { 0 } else { 256 },
            certificate: certificate.as_ref(),
            credentials: credentials.as_ref(),
            request: &request,
            answers: &answers,
        };
        let (decision, trace) = decide(guard, &subject, now);
        let lines = trace.lines(usize::MAX).iter().map(ToString::to_string).collect();
        match decision {
            Decision::Allow(permit) => return ("200".to_owned(), Some(*permit), false, lines),
            Decision::Deny(denial) => {
                return (denial.code.as_str().to_owned(), None, denial.redirect, lines);
            }
            Decision::Ask(question) => {
                let answer = match &question {
                    Question::Password(asked) => {
                        Answer::Password(asked.hash.verify(asked.password.expose()))
                    }
                    Question::Keys(_) => return ("keys".to_owned(), None, false, lines),
                    Question::External(asked) => {
                        let Some(said) = &case.external else {
                            return ("external".to_owned(), None, false, lines);
                        };
                        match asked.service.read(said.status(), &said.headers(), Bytes::new()) {
                            Ok(answer) => Answer::External(answer),
                            Err(_) => return ("503.95".to_owned(), None, false, lines),
                        }
                    }
                    Question::Directory(asked) => Answer::Directory(case.directory(&asked.asked)),
                };
                answers.add(question, answer);
            }
        }
    }
}

#[test]
fn every_case_is_decided_as_it_says() {
    let people = people();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let options = app::options(true, app::Rules::default()).unwrap();
    let (mut count, mut failures) = (0, Vec::new());
    for file in files {
        for group in groups(&std::fs::read_to_string(&file).unwrap()) {
            let directory = people.world(&group);
            let scan = Directory::new(directory.path()).rescan().unwrap();
            let compiled = compile(&scan.world, &Reuse::default(), &options).unwrap();
            for case in &group.cases {
                count += 1;
                let (code, permit, redirect, trace) = answer(case, &people, &compiled.snapshot);
                let permit = permit.as_ref();
                let got = (
                    code,
                    permit.and_then(Permit::user).map(str::to_owned),
                    permit.map(|permit| permit.mechanism().as_str().to_owned()),
                    permit.and_then(Permit::mapping).map(str::to_owned),
                    redirect,
                );
                let wanted = (
                    case.code.clone(),
                    case.account.clone(),
                    case.mechanism.clone(),
                    case.mapping.clone(),
                    case.redirect,
                );
                let missing: Vec<&String> =
                    case.trace.iter().filter(|line| !trace.contains(line)).collect();
                if got != wanted || !missing.is_empty() {
                    failures.push(format!("{} / {}: {got:?} instead of {wanted:?}; trace {trace:#?} lacks {missing:?}; problems {:?}", file.display(), case.name, scan.problems));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} cases:\n{}", failures.len(), failures.join("\n"));
    assert!(count >= 100, "only {count} cases");
}
