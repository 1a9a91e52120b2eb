//! How the static program is linked: docs/performance.md says what it is worth, under "Memory".

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // The program that counts (deploy/profiled-program) is the same whatever is listed: its counts hold as long as it does.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if flags.contains("profile-generate") {
        return;
    }
    // Written by deploy/order.
    let functions = Path::new(&root).join("deploy/functions");
    println!("cargo:rerun-if-changed={}", functions.display());
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let is_static = features.split(',').any(|feature| feature == "crt-static");
    // Elsewhere, other linkers and C libraries are usual.
    let is_known = env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu");
    if !is_static || !is_known {
        return;
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    if functions.exists() {
        println!("cargo:rustc-link-arg-bins=-Wl,--symbol-ordering-file={}", functions.display());
        println!("cargo:rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
    }
}
