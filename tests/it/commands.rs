//! The commands that serve nothing: validate, explain; and the one that makes everything: dev.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::manifests::policy;
use super::support::pki::{leaf, validity};
use super::support::{NEGOTIATE, REQUIRE, Site, run};

fn certmap(arguments: &[&str], path: &Path) -> (bool, String) {
    run(Command::new(env!("CARGO_BIN_EXE_certmap")).args(arguments).arg(path))
}

fn explain(site: &Site, arguments: &[&str]) -> Value {
    let manifests = site.manifests();
    let mut command = Command::new(env!("CARGO_BIN_EXE_certmap"));
    command
        .args(["explain", "--host", "app.test", "-o", "json", "--manifests"])
        .arg(manifests)
        .args(arguments);
    let (ok, text) = run(&mut command);
    assert!(ok, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_cannot_be_begun_is_one_line_that_says_what_to_do() {
    let site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = ["--https", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let started = |manifests: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certmap"));
        command.env("RUST_BACKTRACE", "1").args(["run", "--http", &address]).args(free);
        run(command.arg("--manifests").arg(manifests))
    };
    for (manifests, remedy) in [
        (
            site.manifests(),
            format!("error: {address} cannot be listened on: free it, or give --http"),
        ),
        (
            site.path("nowhere"),
            "cannot be read: give a directory (or a file) of manifests".to_owned(),
        ),
    ] {
        let (ok, text) = started(&manifests);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(!ok && lines.len() == 1 && lines[0].contains(&remedy), "{text}");
        assert!(!text.contains("backtrace"), "{text}");
    }
}

#[test]
fn validate_finds_nothing_in_a_good_directory() {
    let site = Site::with_alice(REQUIRE);
    let (ok, text) = certmap(&["validate"], &site.manifests());
    assert!(
        ok && text.contains("0 errors, 1 warnings") && text.contains("ReachedWithoutPolicy"),
        "{text}"
    );
}

#[test]
fn validate_names_file_line_field_and_remedy() {
    let site = Site::with_alice(NEGOTIATE);
    let mut expired = leaf("Edgar");
    validity(&mut expired, -30, -1);
    let edgar = site.zerossl.issue(expired).base64();
    let spec = format!(
        "sslFlags: {NEGOTIATE}\ntrust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}\noneToOne:\n  mappings:\n  - name: edgar\n    certificate: {edgar}\n    account: {{secretRef: {{name: gone}}}}\nmanyToOne:\n  mappings:\n  - {{name: wide, rules: [{{certificateField: Issuer, certificateSubField: O, matchCriteria: \"Zero*\"}}], account: {{userName: a}}}}\n  - {{name: narrow, rules: [{{certificateField: Issuer, certificateSubField: O, matchCriteria: ZeroSSL}}], account: {{userName: b}}}}\nauthentication: [{{anonymous: {{}}}}]\n"
    );
    site.write("policy.yaml", &policy("app", "app", &spec));
    site.write("slip.yaml", "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {name: slip, namespace: web}\nspec:\n  sslFlags: [Sssl]\n  targetRefs: [{group: networking.k8s.io, kind: Ingress, name: slip}]\n");
    let (ok, text) = certmap(&["validate"], &site.manifests());
    assert!(!ok, "errors make it fail");
    for part in [
        "slip.yaml:5: error: CertMappingPolicy web/slip: spec.sslFlags[0]: not one of the possible values",
        "policy.yaml:12: error: CertMappingPolicy web/app: spec.oneToOne.mappings[0].account: mapping edgar: Secret web/gone does not exist",
        "policy.yaml:11: warning: CertMappingPolicy web/app: spec.oneToOne.mappings[0].certificate: mapping edgar is dead: its certificate is refused, because it has expired",
        "policy.yaml:16: warning: CertMappingPolicy web/app: spec.manyToOne.mappings[1]: mapping narrow never decides",
        "warning: CertMappingPolicy web/app: spec.authentication: a certificate that verifies and maps to nobody is let in as anonymous",
        "Service web/echo",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let (ok, text) = certmap(&["validate", "-o", "json"], &site.manifests());
    let entries: Value = serde_json::from_str(&text).unwrap();
    let slip = entries.as_array().unwrap().iter().find(|entry| entry["name"] == "slip").unwrap();
    assert!(
        !ok && slip["line"] == 5
            && slip["field"] == "spec.sslFlags[0]"
            && slip["severity"] == "error",
        "{slip}"
    );
    let file = site.manifests().join("slip.yaml");
    let (ok, text) = certmap(&["validate"], &file);
    assert!(!ok && text.contains("slip.yaml:5: error"), "a single file: {text}");
}

const SLIP: &str = "apiVersion: certmap.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {name: slip, namespace: web}\nspec: {targetRef: []}\n";

#[test]
fn what_is_nested_without_end_is_one_error_and_the_other_files_count() {
    let site = Site::with_alice(NEGOTIATE);
    site.write("slip.yaml", &SLIP.replace("slip", "other"));
    for opening in ["- ", "[", "{a: ", "? "] {
        // What is wrong before it has a line that is looked for.
        site.write("deep.yaml", &format!("{SLIP}---\n{}\n", opening.repeat(100_000)));
        for (arguments, place) in [
            (&["validate"][..], "deep.yaml:6: error: not valid YAML: "),
            (
                &["explain", "--no-cert", "--host", "app.test", "--manifests"],
                "deep.yaml:6: not valid YAML: ",
            ),
        ] {
            let (_, text) = certmap(arguments, &site.manifests());
            assert!(text.contains(place), "{opening}{arguments:?}: {text}");
        }
        let (_, text) = certmap(&["validate"], &site.manifests());
        assert_eq!(text.matches("deep.yaml:").count(), 1, "{text}");
        assert!(
            text.contains("slip.yaml:4: error: RoutePolicy web/other: spec.targetRef"),
            "{text}"
        );
    }
}

#[test]
fn explain_gives_the_servers_answer_and_its_reasons() {
    let site = Site::with_alice(REQUIRE);
    site.person("stranger", &site.other.issue(leaf("Stranger")));
    let alice = site.path("alice.crt");
    let answer = explain(&site, &["--cert", alice.to_str().unwrap()]);
    assert_eq!(
        (&answer["status"], &answer["code"], &answer["account"]),
        (&200.into(), &"200".into(), &"azureuser".into())
    );
    assert_eq!(
        (&answer["mechanism"], &answer["mapping"]),
        (&"oneToOne".into(), &"alice-laptop".into())
    );
    assert_eq!(answer["trace"][1]["text"], "oneToOne alice-laptop: admitted");
    let stranger = explain(&site, &["--cert", site.path("stranger.crt").to_str().unwrap()]);
    assert_eq!(
        (&stranger["status"], &stranger["code"], &stranger["account"]),
        (&403.into(), &"403.16".into(), &Value::Null)
    );
    assert_eq!(explain(&site, &["--no-cert"])["code"], "403.7");
    assert_eq!(explain(&site, &["--no-cert", "--http"])["code"], "403.4");
    let later =
        explain(&site, &["--cert", alice.to_str().unwrap(), "--at", "2036-01-01T00:00:00Z"]);
    assert_eq!(later["code"], "403.17");
    assert_eq!(explain(&site, &["--no-cert", "--path", "/a//b"])["code"], "400");
}

#[test]
fn explain_reads_every_form_of_a_certificate() {
    let site = Site::with_alice(REQUIRE);
    let (der, line, p7) = (site.path("alice.der"), site.path("alice.b64"), site.path("alice.p7b"));
    std::fs::write(&der, &site.alice.der).unwrap();
    std::fs::write(&line, site.alice.base64()).unwrap();
    let mut openssl = Command::new("openssl");
    openssl
        .args(["crl2pkcs7", "-nocrl", "-certfile"])
        .arg(site.path("alice.crt"))
        .arg("-out")
        .arg(&p7);
    assert!(run(&mut openssl).0);
    let p7_der = site.path("alice.p7");
    assert!(
        run(Command::new("openssl")
            .args(["pkcs7", "-outform", "DER", "-in"])
            .arg(&p7)
            .arg("-out")
            .arg(&p7_der))
        .0
    );
    for file in [der, line, p7, p7_der] {
        assert_eq!(
            explain(&site, &["--cert", file.to_str().unwrap()])["account"],
            "azureuser",
            "{}",
            file.display()
        );
    }
}

#[test]
fn dev_serves_what_it_prints() {
    let directory = tempfile::tempdir().unwrap();
    let dev = directory.path().join("dev dir");
    let mut command = Command::new(env!("CARGO_BIN_EXE_certmap"));
    let any = "127.0.0.1:0";
    command
        .arg("dev")
        .arg(&dev)
        .args(["--http", any, "--https", any, "--admin", any])
        .arg("--access-log")
        .arg(directory.path().join("log"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| !line.starts_with("In a browser")).collect();
    // Another one there is told so, and takes nothing away from the first.
    let mut another = Command::new(env!("CARGO_BIN_EXE_certmap"));
    let (ok, text) = run(another.arg("dev").arg(&dev).args(["--http", any, "--https", any]));
    assert!(!ok && text.contains("another certmap dev: end that one, or name another"), "{text}");
    let mut expected = String::new();
    let (mut tried, mut failed, mut last) = (0, Vec::new(), String::new());
    for line in said {
        let command = line.trim();
        if command.starts_with("curl") {
            let (_, text) = run(Command::new("sh").args(["-c", &format!("{command} -s")]));
            // After the edit, the last line's answer is another one.
            let wanted = if tried == 8 { "user: test" } else { expected.as_str() };
            command.clone_into(&mut last);
            tried += 1;
            if !text.contains(wanted) {
                failed.push(format!("{command}: no {wanted:?} in {text}"));
            }
        } else if command.starts_with("sed") {
            assert!(run(Command::new("sh").args(["-c", command])).0);
            let admin = std::time::Instant::now();
            while admin.elapsed() < std::time::Duration::from_millis(900) {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        } else if let Some((_, answer)) = command.split_once("  ") {
            let answer = answer.trim();
            expected = answer.strip_prefix("200 as ").map_or_else(
                || answer.split(',').next().unwrap_or_default().to_owned(),
                |user| format!("user: {user}"),
            );
        }
    }
    let much = directory.path().join("much");
    std::fs::write(&much, vec![b'x'; 50_000_000]).unwrap();
    let upload = format!("{last} -s --max-time 20 -H Expect: --data-binary @{}", much.display());
    let (ok, text) = run(Command::new("sh").args(["-c", &upload]));
    assert!(ok && text.contains("user: test"), "{text}");
    drop(child.kill());
    drop(child.wait());
    assert!(failed.is_empty() && tried == 9, "{tried} tried: {failed:#?}");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["pkcs12", "-nokeys", "-passin", "pass:certmap", "-in"])
        .arg(dev.join("alice.p12"));
    assert!(run(&mut openssl).1.contains("CN = Alice"));
    let (ok, text) = certmap(&["validate"], &dev.join("manifests"));
    assert!(ok, "{text}");
}

#[test]
fn every_option_of_run_stands_in_the_manual() {
    let (ok, help) = run(Command::new(env!("CARGO_BIN_EXE_certmap")).args(["run", "--help"]));
    assert!(ok, "{help}");
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    let options: Vec<&str> = help
        .lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .filter_map(|line| line.split(word).find(|word| word.starts_with("--")))
        .collect();
    assert!(options.len() > 40 && options.contains(&"--watch-namespaces"), "{options:?}");
    let is_missing = |option: &&&str| {
        let (alone, with_value) = (format!("`{option}`"), format!("`{option} "));
        **option != "--help" && !manual.contains(&alone) && !manual.contains(&with_value)
    };
    let missing: Vec<&&str> = options.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "docs/operations.md does not say what these do: {missing:?}");
}
