//! Whose certificate it is, by every form.

use rcgen::DnType;

use super::certificates::{key_sha1, with_email, with_key_id, with_sid, with_sid_uri, with_upn};
use super::domain::{User, group};
use super::site::{Corp, ISSUER, Terms, later, outcome};
use super::support::NEGOTIATE;
use super::support::pki::{leaf, named};

fn pair(code: &str, user: &str) -> (String, String) {
    (code.to_owned(), user.to_owned())
}

#[test]
fn every_strong_form_leads_to_its_account() {
    let corp = Corp::new(&Terms::default());
    let folder = corp.site.directory.path();
    let serial = corp.mapped("sf-serial");
    corp.person("sf-ski", with_key_id("sf-ski", &[0xDE, 0xAD, 0xBE, 0xEF, 1]));
    let key = corp.person("sf-key", leaf("sf-key"));
    let key = format!("X509:<SHA1-PUKEY>{}", key_sha1(folder, &key).to_lowercase());
    let users = User::many(&[
        ("sf-serial".into(), vec![serial]),
        ("sf-ski".into(), vec!["X509:<SKI>deadbeef01".into()]),
        ("sf-key".into(), vec!["X509:<RFC822>other@corp.example".into(), key]),
        ("sf-sid".into(), vec![]),
        ("sf-uri".into(), vec![]),
    ]);
    let sid = |name: &str| users.iter().find(|user| user.name == name).unwrap().sid();
    corp.person("sf-sid", with_sid(leaf("sf-sid"), &sid("sf-sid")));
    corp.person("sf-uri", with_sid_uri(leaf("sf-uri"), &sid("sf-uri")));
    for name in ["sf-serial", "sf-ski", "sf-key", "sf-sid", "sf-uri"] {
        let wanted = pair("200", &format!("CORP\\{name}"));
        assert_eq!(corp.outcome(name), wanted, "{name}");
    }
    // The log says by what.
    let line = corp.server.logged(|line| line.contains("CN=sf-sid"));
    assert!(line.contains("\"activeDirectory\""), "{line}");
}

#[test]
fn weak_forms_lead_to_accounts_only_where_they_are_listed() {
    let corp = Corp::new(&Terms::default());
    User::many(&[
        ("wf-is".into(), vec![format!("X509:<I>{ISSUER}<S>CN=wf-is")]),
        ("wf-s".into(), vec!["X509:<S>CN=wf-s".into()]),
        ("wf-mail".into(), vec!["X509:<RFC822>wf-mail@mail.example".into()]),
        ("wf-upn".into(), vec![]),
    ]);
    for name in ["wf-is", "wf-s"] {
        let mut params = leaf(name);
        later(&mut params);
        corp.person(name, params);
    }
    let mut mail = with_email("wf-mail", "wf-mail@mail.example");
    later(&mut mail);
    corp.person("wf-mail", mail);
    let mut upn = with_upn(leaf("wf-upn"), "wf-upn@corp.example");
    later(&mut upn);
    corp.person("wf-upn", upn);
    let all = ["wf-is", "wf-s", "wf-mail", "wf-upn"];
    for name in all {
        assert_eq!(corp.outcome(name), pair("401.2", "-"), "{name}");
    }
    let listed =
        Terms { more: "{weakMappings: [IssuerSubject, Subject, Rfc822, Upn]}", ..Terms::default() };
    corp.server.edit("policy.yaml", &listed.policy());
    for name in all {
        let wanted = pair("200", &format!("CORP\\{name}"));
        assert_eq!(corp.outcome(name), wanted, "{name}");
    }
    // Made before the account was: whoever makes accounts must not be able to take over an old certificate.
    corp.person("wf-old", with_upn(leaf("wf-old"), "wf-upn@corp.example"));
    assert_eq!(corp.outcome("wf-old"), pair("401.1", "-"));
    let reason = corp.reason("wf-old");
    assert!(
        reason.contains("older than account CORP\\wf-upn, to which only Upn (weak)"),
        "{reason}"
    );
}

#[test]
fn a_certificate_that_claims_anothers_upn_or_sid_gets_nowhere() {
    let terms = Terms { more: "{weakMappings: [Upn]}", ..Terms::default() };
    let corp = Corp::new(&terms);
    let alice = User::new("cl-alice");
    let mut claims_both = with_sid(with_upn(leaf("cl-both"), "cl-bob@corp.example"), &alice.sid());
    later(&mut claims_both);
    corp.person("cl-both", claims_both);
    User::new("cl-bob");
    // Alice's SID and Bob's UPN.
    assert_eq!(corp.outcome("cl-both"), pair("401.1", "-"));
    assert!(
        corp.reason("cl-both").contains("and another account match"),
        "{}",
        corp.reason("cl-both")
    );
    // A SID of nobody's, and Bob's UPN.
    let mut params = with_upn(leaf("cl-sid"), "cl-bob@corp.example");
    later(&mut params);
    corp.person("cl-sid", with_sid(params, "S-1-5-21-1-2-3-4"));
    assert_eq!(corp.outcome("cl-sid"), pair("401.1", "-"));
    assert!(corp.reason("cl-sid").contains("S-1-5-21-1-2-3-4 is not that of CORP\\cl-bob"));
    // A strong mapping of Alice's, and Bob's UPN.
    let strong = with_upn(leaf("cl-strong"), "cl-bob@corp.example");
    let identity = corp.person("cl-strong", strong);
    let alice = alice.map(&corp.by_serial(&identity));
    assert_eq!(corp.outcome("cl-strong"), pair("401.1", "-"));
    // Where UPNs count for nothing, it is Alice's.
    corp.server.edit("policy.yaml", &Terms::default().policy());
    assert_eq!(corp.outcome("cl-strong"), pair("200", &format!("CORP\\{}", alice.name)));
}

#[test]
fn two_accounts_with_one_mapping_refuse() {
    let corp = Corp::new(&Terms::default());
    let mapping = corp.mapped("tw-cert");
    User::many(&[("tw-one".into(), vec![mapping.clone()]), ("tw-two".into(), vec![mapping])]);
    assert_eq!(corp.outcome("tw-cert"), pair("401.1", "-"));
    assert!(corp.reason("tw-cert").contains("and another account match"));
}

#[test]
fn names_with_signs_that_mean_something_are_found_and_mean_nothing() {
    let terms = Terms { more: "{weakMappings: [Subject]}", ..Terms::default() };
    let corp = Corp::new(&terms);
    User::many(&[
        ("es-windows".into(), vec!["X509:<S>C=US,CN=\"Doe, John (HR)*\"".into()]),
        ("es-escaped".into(), vec!["X509:<S>C=US,CN=Roe\\, Jane (HR)*".into()]),
    ]);
    let person = |file: &str, common_name: &str| {
        let mut params =
            named(&[(DnType::CountryName, "US".into()), (DnType::CommonName, common_name.into())]);
        later(&mut params);
        corp.person(file, params);
    };
    person("es-john", "Doe, John (HR)*");
    person("es-jane", "Roe, Jane (HR)*");
    person("es-any", "*");
    person("es-filter", "x)(|(sAMAccountName=es-windows)");
    person("es-join", "a<S>C=US,CN=\"Doe, John (HR)*\"");
    assert_eq!(corp.outcome("es-john"), pair("200", "CORP\\es-windows"));
    assert_eq!(corp.outcome("es-jane"), pair("200", "CORP\\es-escaped"));
    for nobody in ["es-any", "es-filter", "es-join"] {
        assert_eq!(corp.outcome(nobody), pair("401.2", "-"), "{nobody}");
    }
}

#[test]
fn an_account_that_cannot_be_used_is_refused_with_its_own_reason() {
    let terms = Terms { more: "{refuseExpiredPassword: true}", ..Terms::default() };
    let corp = Corp::new(&terms);
    let make = |name: &str| User::new(name).map(&corp.mapped(name));
    let (disabled, expired, locked, password) =
        (make("us-off"), make("us-gone"), make("us-locked"), make("us-pw"));
    for user in [&disabled, &expired, &locked, &password] {
        assert_eq!(corp.outcome(&user.name).0, "200", "{}", user.name);
    }
    disabled.disable();
    expired.set("accountExpires", "130000000000000000");
    super::logon::lock(&locked);
    // To be changed at the next logon.
    password.set("pwdLastSet", "0");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    for (user, reason) in [
        (&disabled, "the account is disabled"),
        (&expired, "the account has expired"),
        (&locked, "the account is locked out"),
        (&password, "the account's password has expired"),
    ] {
        assert_eq!(corp.outcome(&user.name), pair("401.1", "-"), "{}", user.name);
        let logged = corp.reason(&user.name);
        assert_eq!(logged, format!("account CORP\\{}: {reason}", user.name));
    }
    corp.server.edit("policy.yaml", &Terms::default().policy());
    assert_eq!(corp.outcome("us-pw").0, "200", "only where it is asked for");
}

#[test]
fn nested_groups_decide_who_may_come_in() {
    let spec = "{authorization: {allow: {groups: ['CORP\\gr-outer']}}}";
    let corp = Corp::new(&Terms { spec, ..Terms::default() });
    User::many(&[
        ("gr-in".into(), vec![corp.mapped("gr-in")]),
        ("gr-out".into(), vec![corp.mapped("gr-out")]),
    ]);
    group("gr-inner", &["gr-in"]);
    group("gr-middle", &["gr-inner"]);
    group("gr-outer", &["gr-middle"]);
    assert_eq!(corp.outcome("gr-in"), pair("200", "CORP\\gr-in"));
    assert_eq!(corp.outcome("gr-out"), pair("401.3", "-"));
    let told = |more: &str| {
        corp.server.edit("policy.yaml", &Terms { spec, more, ..Terms::default() }.policy());
        let told = corp.get("gr-in").told();
        let mut headers = told["headers"].as_array().unwrap().iter();
        headers.find(|it| it[0] == "x-remote-groups").unwrap()[1].as_str().unwrap().to_owned()
    };
    // The backend is told of some groups alone; who may come in is decided by all of them.
    assert_eq!(told("{groups: ['gr-inner']}"), "CORP\\gr-inner");
    assert_eq!(told("{groups: ['CORP\\GR-*']}"), "CORP\\gr-inner,CORP\\gr-middle,CORP\\gr-outer");
}

#[test]
fn one_to_one_goes_first_and_what_is_nobodys_goes_on() {
    let corp = Corp::new(&Terms::default());
    let identity = corp.person("or-cert", leaf("or-cert"));
    User::new("or-user").map(&corp.by_serial(&identity));
    let mapping = format!(
        "{{oneToOne: {{mappings: [{{name: m, certificate: \"{}\", account: {{userName: mapped}}}}]}}}}",
        identity.base64()
    );
    corp.server.edit("policy.yaml", &Terms { spec: &mapping, ..Terms::default() }.policy());
    assert_eq!(corp.outcome("or-cert"), pair("200", "mapped"));
    let off = Terms { more: "{enabled: false}", ..Terms::default() };
    corp.server.edit("policy.yaml", &off.policy());
    assert_eq!(corp.outcome("or-cert"), pair("401.2", "-"));
    corp.person("or-nobody", leaf("or-nobody"));
    let text = Terms::default().policy();
    corp.server
        .edit("policy.yaml", &text.replace(NEGOTIATE, "[Ssl, SslNegotiateCert, SslMapCert]"));
    assert_eq!(corp.outcome("or-nobody"), pair("403.12", "-"));
    assert_eq!(corp.outcome("or-cert"), pair("200", "CORP\\or-user"));
    let any = Terms { spec: "{admitAnyVerified: {userFrom: SubjectCN}}", ..Terms::default() };
    corp.server.edit("policy.yaml", &any.policy());
    assert_eq!(corp.outcome("or-nobody"), pair("200", "or-nobody"));
}

#[test]
fn nothing_of_a_certificate_that_does_not_verify_reaches_the_directory() {
    let corp = Corp::new(&Terms::default());
    let identity = corp.site.other.issue(leaf("un-cert"));
    corp.site.person("un-cert", &identity);
    assert_eq!(corp.outcome("un-cert"), pair("403.16", "-"));
    for outcome in ["asked", "remembered", "failed"] {
        let series = format!("certmap_directory_questions_total{{outcome=\"{outcome}\"}}");
        assert_eq!(corp.count(&series), 0, "{outcome}");
    }
}

#[test]
fn every_way_to_the_server_is_encrypted_and_its_name_is_checked() {
    let terms = |urls, server_name| Terms { urls, server_name, ..Terms::default() };
    let corp = Corp::new(&terms("ldap://127.0.0.1", "dc1.corp.example"));
    User::new("wa-user").map(&corp.mapped("wa-user"));
    let found = pair("200", "CORP\\wa-user");
    assert_eq!(corp.outcome("wa-user"), found, "StartTLS");
    corp.server.edit("policy.yaml", &terms("ldaps://127.0.0.1:3269", "127.0.0.1").policy());
    assert_eq!(
        corp.outcome("wa-user"),
        found,
        "the global catalog, by an address in the certificate"
    );
    corp.server.edit(
        "policy.yaml",
        &terms("ldaps://127.0.0.1:1 ldaps://127.0.0.1", "dc1.corp.example").policy(),
    );
    assert_eq!(corp.outcome("wa-user"), found, "the second server");
    corp.server.edit("policy.yaml", &terms("ldap://127.0.0.1:3268", "dc1.corp.example").policy());
    assert_eq!(corp.outcome("wa-user"), found, "the global catalog with StartTLS");
    for (base, code) in [
        ("CN=Users,DC=corp,DC=example", "200"),
        ("CN=Computers,DC=corp,DC=example", "401.2"),
        ("DC=elsewhere", "503.93"),
    ] {
        let more = format!("{{baseDN: '{base}'}}");
        corp.server.edit("policy.yaml", &Terms { more: &more, ..Terms::default() }.policy());
        assert_eq!(corp.outcome("wa-user").0, code, "{base}");
    }
    for url in ["ldaps://127.0.0.1", "ldap://127.0.0.1"] {
        corp.server.edit("policy.yaml", &terms(url, "dc2.corp.example").policy());
        assert_eq!(corp.outcome("wa-user"), pair("503.93", "-"), "another name, {url}");
    }
    assert!(corp.reason("wa-user").contains("certificate"), "{}", corp.reason("wa-user"));
    // Another CA than the one that issued its certificate.
    let other =
        super::support::manifests::config_map("directory-ca", "ca.crt", &corp.site.other.pem());
    corp.server.edit("policy.yaml", &Terms::default().policy());
    assert_eq!(corp.outcome("wa-user"), found);
    corp.server.edit("directory-ca.yaml", &other);
    assert_eq!(corp.outcome("wa-user"), pair("503.93", "-"), "another CA; nothing is remembered");
}

#[test]
fn a_bind_account_that_is_wrong_or_missing_admits_nobody() {
    let corp = Corp::new(&Terms::default());
    User::new("bi-user").map(&corp.mapped("bi-user"));
    assert_eq!(corp.outcome("bi-user").0, "200");
    let wrong = super::support::manifests::basic_secret(
        "directory-bind",
        "administrator@corp.example",
        "wrong",
    );
    corp.server.edit("directory-bind.yaml", &wrong);
    assert_eq!(corp.outcome("bi-user").0, "503.93");
    assert!(corp.reason("bi-user").contains("does not accept the bind account"));
    // By certificate, which Samba does not take.
    let by_certificate = Terms::default().policy().replace(
        "bind: {secretRef: {name: directory-bind}}",
        "bind: {certificateRef: {name: server-tls}}",
    );
    corp.server.edit("policy.yaml", &by_certificate);
    assert_eq!(corp.outcome("bi-user").0, "503.93");
    corp.server.edit("policy.yaml", &Terms::default().policy());
    corp.server.delete("directory-bind.yaml");
    let reply = corp.get("bi-user");
    assert_eq!(outcome(&reply).0, "503.93");
    assert!(!reply.body.contains("administrator"), "{}", reply.body);
}

#[test]
fn explain_says_what_would_be_asked_and_asks_it() {
    let corp = Corp::new(&Terms::default());
    User::new("ex-user").map(&corp.mapped("ex-user"));
    let explain = |further: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_certmap"));
        command.args(["explain", "--host", "app.test", "--manifests"]).arg(corp.site.manifests());
        command.arg("--cert").arg(corp.site.path("ex-user.crt"));
        super::support::run(command.args(further))
    };
    let (ok, text) = explain(&[]);
    assert!(
        ok && text.contains("undecided") && text.contains("ldaps://127.0.0.1:636 is asked for (&("),
        "{text}"
    );
    let (ok, text) = explain(&["--live"]);
    assert!(ok && text.contains("CORP\\ex-user by IssuerSerial (strong)"), "{text}");
}
