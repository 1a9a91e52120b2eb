//! The rules of the house: which room may know which, what is pure, and how long things may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::Visit;

/// Each room and the rooms that it may import.
const ROOMS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("identity", &[]),
    ("auth", &["identity"]),
    ("policy", &["api", "identity", "auth"]),
    ("snapshot", &["identity", "auth", "policy"]),
    ("compile", &["api", "identity", "auth", "policy", "snapshot"]),
    ("source", &["api", "compile"]),
    ("status", &["api", "identity", "compile"]),
    ("lookup", &["identity", "auth", "policy", "snapshot"]),
    ("telemetry", &["identity", "auth", "policy", "snapshot"]),
    ("proxy", &["api", "identity", "auth", "policy", "snapshot", "lookup", "telemetry"]),
    ("dev", &["api", "identity"]),
    (
        "app",
        &[
            "api",
            "identity",
            "auth",
            "policy",
            "snapshot",
            "compile",
            "source",
            "status",
            "lookup",
            "proxy",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "api",
            "identity",
            "auth",
            "policy",
            "snapshot",
            "compile",
            "source",
            "status",
            "proxy",
            "telemetry",
            "app",
            "dev",
        ],
    ),
];

/// Rooms and files that wait for nothing and read nothing.
const PURE: &[&str] = &[
    "api/",
    "identity/",
    "auth/",
    "policy/",
    "compile/",
    "snapshot/route.rs",
    "snapshot/host.rs",
    "snapshot/path.rs",
    "status/report.rs",
    "status/conditions.rs",
    "status/events.rs",
];
const IMPURE: &[&str] = &[
    "tokio::",
    "std::net::Tcp",
    "std::fs",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "UnixTime::now",
    "Timestamp::now",
    "kube::Client",
    "hyper::",
];

/// Crates that must not be in the tree: one TLS provider, and none of C's that we did not choose.
const BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls"];

struct File {
    /// Below `src`.
    path: String,
    text: String,
    syntax: syn::File,
}

fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let syntax = syn::parse_file(&text).unwrap();
        File { path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text, syntax }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

/// Without the trailing test module.
fn body(file: &File) -> String {
    let tests = file.syntax.items.iter().find_map(|item| match item {
        syn::Item::Mod(module) if is_test(&module.attrs) => Some(module.span().start().line),
        _ => None,
    });
    file.text
        .lines()
        .take(tests.map_or(usize::MAX, |line| line - 1))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[derive(Default)]
struct Functions(Vec<(String, usize)>);

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

impl Functions {
    fn add(&mut self, name: &syn::Ident, block: &syn::Block) {
        let span = block.span();
        self.0
            .push((name.to_string(), span.end().line.saturating_sub(span.start().line + 1).max(1)));
    }
}

#[test]
fn functions_and_files_are_short() {
    let mut lengths = Vec::new();
    for file in files() {
        let lines = body(&file).lines().count();
        assert!(lines <= 600, "{} has {lines} lines without its tests", file.path);
        let mut functions = Functions::default();
        functions.visit_file(&file.syntax);
        for (name, length) in functions.0 {
            assert!(length <= 80, "{}: {name} has {length} lines", file.path);
            lengths.push(length);
        }
    }
    lengths.sort_unstable();
    let at = |share: usize| lengths[lengths.len() * share / 100];
    println!(
        "{} functions: median {}, nine in ten at most {}, longest {}",
        lengths.len(),
        at(50),
        at(90),
        lengths.last().unwrap()
    );
    assert!(at(50) <= 8 && at(90) <= 30);
}

#[test]
fn rooms_import_only_what_stands_left_of_them() {
    let may: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut met = BTreeSet::new();
    for file in files() {
        let room = file.path.split(['/', '.']).next().unwrap();
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let allowed = may.get(room).unwrap_or_else(|| panic!("{} is in no known room", file.path));
        met.insert(room.to_owned());
        for imported in body(&file).split("crate::").skip(1) {
            let other: String =
                imported.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(
                other == room || allowed.contains(&other.as_str()),
                "{} may not import {other}",
                file.path
            );
        }
    }
    assert_eq!(met.len(), ROOMS.len(), "a room is gone");
    let pairs: Vec<_> = ROOMS
        .iter()
        .flat_map(|(room, allowed)| allowed.iter().map(move |other| (*room, *other)))
        .collect();
    assert!(pairs.iter().all(|(a, b)| !pairs.contains(&(b, a))), "two rooms import each other");
}

#[test]
fn modules_of_a_room_do_not_import_each_other() {
    let mut arrows = BTreeSet::new();
    for file in files() {
        let (Some((room, name)), text) =
            (file.path.trim_end_matches(".rs").rsplit_once('/'), body(&file))
        else {
            continue;
        };
        for imported in text.split("super::").skip(1) {
            let other: String =
                imported.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name != "mod" && other != name {
                arrows.insert((room.to_owned(), name.to_owned(), other));
            }
        }
    }
    for (room, a, b) in &arrows {
        assert!(
            !arrows.contains(&(room.clone(), b.clone(), a.clone())),
            "{room}: {a} and {b} import each other"
        );
    }
}

#[test]
fn pure_rooms_wait_for_nothing_and_read_nothing() {
    for file in
        files().into_iter().filter(|file| PURE.iter().any(|pure| file.path.starts_with(pure)))
    {
        let text = body(&file);
        for impure in IMPURE {
            assert!(!text.contains(impure), "{} uses {impure}", file.path);
        }
    }
}

#[test]
fn errors_are_typed_but_at_the_edge() {
    let edges = ["main.rs", "app/", "cli/"];
    for file in
        files().into_iter().filter(|file| !edges.iter().any(|edge| file.path.starts_with(edge)))
    {
        assert!(!file.text.contains("anyhow"), "{} uses anyhow", file.path);
    }
}

#[test]
fn a_permit_is_made_by_the_decision_alone() {
    for file in files().into_iter().filter(|file| !file.path.starts_with("policy/")) {
        assert!(
            !file.text.contains("Permit {") && !file.text.contains("Permit{"),
            "{} makes a permit",
            file.path
        );
    }
    let makers: Vec<String> = files()
        .into_iter()
        .filter(|file| file.path.starts_with("policy/") && file.text.contains("Permit {"))
        .map(|file| file.path)
        .filter(|path| path != "policy/permit.rs")
        .collect();
    assert_eq!(makers, ["policy/decide.rs"]);
}

#[test]
fn every_file_says_what_it_is_for() {
    for file in files() {
        assert!(file.text.starts_with("//! "), "{}", file.path);
    }
}

#[test]
fn banned_crates_are_not_in_the_tree() {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["tree", "--target", "all", "-e", "normal,build", "--prefix", "none", "--locked"]);
    let (ok, tree) = super::support::run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    assert!(ok && tree.contains("aws-lc-rs v"), "{tree}");
    for name in BANNED {
        assert!(
            !tree.lines().any(|line| line.starts_with(&format!("{name} v"))),
            "{name} is in the tree"
        );
    }
}
