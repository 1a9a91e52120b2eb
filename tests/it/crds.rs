//! What `crds/` holds is what `certmap crds` prints.

use std::path::Path;
use std::process::Command;

use certmap::api::{CrdKind, crd_yaml};

use super::support::run;

#[test]
fn the_directory_holds_what_the_command_prints() {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let (ok, printed) = run(Command::new(env!("CARGO_BIN_EXE_certmap")).arg("crds"));
    assert!(ok, "{printed}");
    let mut all = String::new();
    for kind in CrdKind::ALL {
        let file = crds.join(format!("{}.yaml", kind.plural()));
        let (kept, made) = (std::fs::read_to_string(&file).unwrap_or_default(), crd_yaml(kind));
        assert!(kept == made, "{} is out of date: run crds/generate", file.display());
        all.push_str(&made);
    }
    assert_eq!(printed, all, "the command prints all of them");
    assert_eq!(std::fs::read_dir(crds).unwrap().count(), CrdKind::ALL.len() + 1);
}

#[test]
fn people_find_their_way_by_columns_and_short_names() {
    for (kind, parts) in [
        (CrdKind::CertMappingPolicy, ["- cmp\n", "name: Mappings\n"]),
        (CrdKind::RoutePolicy, ["- cmrp\n", "name: Programmed\n"]),
    ] {
        let crd = crd_yaml(kind);
        let common = [
            "- gateway-api\n",
            "gateway.networking.k8s.io/policy: Direct",
            "name: Accepted\n",
            "subresources:",
        ];
        for part in parts.iter().chain(&common) {
            assert!(crd.contains(part), "{kind:?} {part}");
        }
        assert!(!crd.contains("additionalProperties: false"), "an API server would not take it");
    }
}
