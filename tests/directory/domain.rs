//! The directory's own side: accounts and groups made by the tools of whoever runs one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(crate) const PASSWORD: &str = "Al1ce!Pass";
const ADMIN: &str = "CORP\\administrator";
pub(crate) const ADMIN_PASSWORD: &str = "Test!Admin-1";
const USERS: &str = "CN=Users,DC=corp,DC=example";

pub(crate) fn home() -> PathBuf {
    std::env::var_os("CERTMAP_AD_DIR").map_or_else(|| "/var/lib/certmap-ad".into(), PathBuf::from)
}

pub(crate) fn ca() -> String {
    std::fs::read_to_string(home().join("pki/ca.crt")).expect("start it by tests/directory/up")
}

/// One of the scripts beside this file.
pub(crate) fn script(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/directory").join(name);
    assert!(Command::new(path).status().unwrap().success(), "{name}");
}

/// An LDAP tool, with LDIF or the like on its standard input.
fn tool(program: &str, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(["-x", "-H", "ldaps://127.0.0.1", "-D", ADMIN, "-w", ADMIN_PASSWORD])
        .args(arguments)
        .env("LDAPTLS_CACERT", home().join("pki/ca.crt"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn modify(ldif: &str) {
    let (ok, text) = tool("ldapmodify", &["-c"], ldif);
    assert!(ok, "{text}\n{ldif}");
}

fn base64_line(name: &str, value: &[u8]) -> String {
    format!("{name}:: {}\n", STANDARD.encode(value))
}

/// The value of unicodePwd: in quotes, as UTF-16.
fn password_line(password: &str) -> String {
    let quoted: Vec<u8> =
        format!("\"{password}\"").encode_utf16().flat_map(u16::to_le_bytes).collect();
    base64_line("unicodePwd", &quoted)
}

/// An account, made anew.
pub(crate) struct User {
    pub(crate) name: String,
    dn: String,
}

impl User {
    pub(crate) fn new(name: &str) -> Self {
        Self::many(&[(name.to_owned(), Vec::new())]).remove(0)
    }

    /// With these altSecurityIdentities; all in one go.
    pub(crate) fn many(users: &[(String, Vec<String>)]) -> Vec<Self> {
        let dn = |name: &str| format!("CN={name},{USERS}");
        let old: String = users.iter().map(|(name, _)| dn(name) + "\n").collect();
        drop(tool("ldapdelete", &["-c"], &old));
        let entry = |(name, mappings): &(String, Vec<String>)| {
            let mappings: String = mappings
                .iter()
                .map(|mapping| base64_line("altSecurityIdentities", mapping.as_bytes()))
                .collect();
            format!(
                "dn: {}\nchangetype: add\nobjectClass: user\nsAMAccountName: {name}\nuserPrincipalName: {name}@corp.example\nuserAccountControl: 512\n{}{mappings}\n",
                dn(name),
                password_line(PASSWORD)
            )
        };
        modify(&users.iter().map(entry).collect::<String>());
        users.iter().map(|(name, _)| Self { name: name.clone(), dn: dn(name) }).collect()
    }

    /// Sets an attribute.
    pub(crate) fn set(&self, attribute: &str, value: &str) {
        let line = base64_line(attribute, value.as_bytes());
        modify(&format!("dn: {}\nchangetype: modify\nreplace: {attribute}\n{line}-\n", self.dn));
    }

    pub(crate) fn map(self, mapping: &str) -> Self {
        self.set("altSecurityIdentities", mapping);
        self
    }

    pub(crate) fn set_password(&self, password: &str) {
        let line = password_line(password);
        modify(&format!("dn: {}\nchangetype: modify\nreplace: unicodePwd\n{line}-\n", self.dn));
    }

    pub(crate) fn disable(&self) {
        self.set("userAccountControl", "514");
    }

    /// The attribute's first value.
    pub(crate) fn get(&self, attribute: &str) -> Option<String> {
        let (ok, text) = tool(
            "ldapsearch",
            &["-LLL", "-o", "ldif-wrap=no", "-s", "base", "-b", &self.dn, attribute],
            "",
        );
        assert!(ok, "{text}");
        let line = |line: &str| line.strip_prefix(&format!("{attribute}: ")).map(str::to_owned);
        text.lines().find_map(line)
    }

    /// As text.
    pub(crate) fn sid(&self) -> String {
        let (ok, text) = super::support::run(
            Command::new("samba-tool")
                .args(["user", "show", &self.name, "--attributes=objectSid", "-s"])
                .arg(home().join("etc/smb.conf")),
        );
        assert!(ok, "{text}");
        let sid = text.lines().find_map(|line| line.strip_prefix("objectSid: "));
        sid.unwrap_or_else(|| panic!("{text}")).to_owned()
    }
}

/// A group with these members (users or groups), made anew.
pub(crate) fn group(name: &str, members: &[&str]) {
    let dn = format!("CN={name},{USERS}");
    drop(tool("ldapdelete", &[&dn], ""));
    let members: String = members.iter().map(|it| format!("member: CN={it},{USERS}\n")).collect();
    modify(&format!(
        "dn: {dn}\nchangetype: add\nobjectClass: group\nsAMAccountName: {name}\n{members}\n"
    ));
}
