//! Basic, by name and password of the directory.

use super::domain::{PASSWORD, User};
use super::site::{Corp, Terms, outcome};

const BASIC: &str = "{authentication: [{basic: {directory: true, secretRefs: [{name: test}]}}]}";

fn log_on(corp: &Corp, name: &str, password: &str) -> (String, String) {
    outcome(&corp.get_with("-", &["-u", &format!("{name}:{password}")]))
}

fn failures(user: &User) -> u32 {
    user.get("badPwdCount").map_or(0, |count| count.parse().unwrap())
}

/// By as many wrong passwords as the directory takes.
pub(crate) fn lock(user: &User) {
    for attempt in 0..4 {
        let _ = std::process::Command::new("ldapwhoami")
            .args(["-x", "-H", "ldaps://127.0.0.1", "-D", &format!("{}@corp.example", user.name)])
            .args(["-w", &format!("wrong-{attempt}")])
            .env("LDAPTLS_CACERT", super::domain::home().join("pki/ca.crt"))
            .output()
            .unwrap();
    }
}

#[test]
fn every_spelling_of_a_name_logs_on_with_its_password() {
    let corp = Corp::new(&Terms { spec: BASIC, ..Terms::default() });
    User::new("lo-alice");
    for name in [
        "lo-alice",
        "LO-Alice",
        "CORP\\lo-alice",
        "corp.example\\lo-alice",
        "lo-alice@corp.example",
        "lo-alice@CORP",
    ] {
        let (code, user) = log_on(&corp, name, PASSWORD);
        let wanted =
            if name.contains("example\\") { ("401.1", "-") } else { ("200", "CORP\\lo-alice") };
        assert_eq!((code.as_str(), user.as_str()), wanted, "{name}");
    }
    assert_eq!(log_on(&corp, "test", "battery-staple"), ("200".into(), "test".into()));
    assert_eq!(log_on(&corp, "test", PASSWORD).0, "401.1", "whom a Secret names is the Secret's");
}

#[test]
fn whatever_is_not_name_and_password_is_refused() {
    let corp = Corp::new(&Terms { spec: BASIC, ..Terms::default() });
    let off = User::new("lo-off");
    off.disable();
    User::new("lo-bob");
    for (name, password) in [
        ("lo-bob", ""),
        ("lo-bob", "wrong"),
        ("lo-nobody", PASSWORD),
        ("lo-*", PASSWORD),
        ("*", PASSWORD),
        ("CN=lo-bob,CN=Users,DC=corp,DC=example", PASSWORD),
        ("OTHER\\lo-bob", PASSWORD),
        ("lo-bob@other.example", PASSWORD),
        ("lo-bob)(cn=*", PASSWORD),
        ("lo-off", PASSWORD),
        ("", ""),
    ] {
        assert_eq!(
            log_on(&corp, name, password),
            ("401.1".into(), "-".into()),
            "{name}:{password}"
        );
    }
    let reply = corp.get("-");
    assert_eq!(reply.code(), "401.2");
    assert!(reply.head.contains("www-authenticate: basic realm=\"app\""), "{}", reply.head);
}

#[test]
fn a_client_that_repeats_a_wrong_password_locks_nobody_out() {
    let corp = Corp::new(&Terms { spec: BASIC, ..Terms::default() });
    let user = User::new("lo-safe");
    for _ in 0..6 {
        assert_eq!(log_on(&corp, "lo-safe", "wrong").0, "401.1");
        assert_eq!(log_on(&corp, "CORP\\lo-safe", "wrong").0, "401.1");
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    assert_eq!(failures(&user), 1, "asked once, however long it goes on");
    assert_eq!(log_on(&corp, "lo-safe", PASSWORD).0, "200");
    // Another password from now on, and the wrong one is tried again, for it could be right now.
    user.set_password("wrong-1-New");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(log_on(&corp, "lo-safe", "wrong-1-New").0, "200");
    assert_eq!(log_on(&corp, "lo-safe", PASSWORD).0, "401.1", "the old one is not remembered");
}

#[test]
fn a_locked_account_does_not_log_on_with_the_right_password() {
    let corp = Corp::new(&Terms { spec: BASIC, ..Terms::default() });
    let user = User::new("lo-locked");
    lock(&user);
    assert_eq!(log_on(&corp, "lo-locked", PASSWORD), ("401.1".into(), "-".into()));
}
