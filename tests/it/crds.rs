//! What `crds/` holds is what `certmap crds` prints.

use std::path::Path;
use std::process::Command;

use super::support::run;

#[test]
fn the_directory_holds_what_the_command_prints() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/certmappingpolicies.yaml");
    let (ok, printed) = run(Command::new(env!("CARGO_BIN_EXE_certmap")).arg("crds"));
    assert!(ok, "{printed}");
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == printed,
        "{} is out of date: cargo run -- crds > crds/certmappingpolicies.yaml",
        file.display()
    );
}

#[test]
fn people_find_their_way_by_columns_and_short_names() {
    let crd = certmap::api::crd_yaml();
    for part in [
        "- cmp\n",
        "- gateway-api\n",
        "gateway.networking.k8s.io/policy: Direct",
        "name: Accepted\n",
        "name: Mappings\n",
        "subresources:",
    ] {
        assert!(crd.contains(part), "{part}");
    }
    assert!(!crd.contains("additionalProperties: false"), "an API server would not take it");
}
