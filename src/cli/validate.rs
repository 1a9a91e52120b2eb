//! `certmap validate`: everything that is wrong with manifests, with file and line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustls::pki_types::UnixTime;
use serde_json::{Value, json};

use super::cluster::{AccessArguments, RuleArguments};
use super::{Output, print, read_cluster};
use crate::app;
use crate::compile::{Finding, ObjectRef, Reuse, Severity, compile, lint};
use crate::source::{Locator, Problem};

#[derive(Args, Debug)]
pub(super) struct ValidateArguments {
    /// Directories and files, taken together; without any, a cluster is looked at
    #[arg(value_name = "PATH", conflicts_with_all = ["kubeconfig", "context", "watch_namespaces"])]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    rules: RuleArguments,
    /// text, or json for programs
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// One line of the report.
struct Entry {
    severity: Severity,
    file: Option<PathBuf>,
    line: Option<usize>,
    object: Option<ObjectRef>,
    field: String,
    reason: &'static str,
    message: String,
}

pub(super) fn validate(arguments: &ValidateArguments) -> anyhow::Result<ExitCode> {
    let is_cluster = arguments.paths.is_empty();
    let rules = arguments.rules.rules();
    let (directories, world, problems, unreadable) = if is_cluster {
        let (world, unreadable) = read_cluster(&arguments.access, &rules)?;
        (Vec::new(), world, Vec::new(), unreadable)
    } else {
        let (directories, world, problems) = app::read_all(&arguments.paths)?;
        (directories, world, problems, Vec::new())
    };
    let compiled = compile(&world, &Reuse::default(), &app::options(!is_cluster, rules)?)?;
    let mut findings = compiled.findings;
    findings.extend(unreadable);
    findings.extend(lint(&world, &compiled.snapshot, UnixTime::now()));
    let mut entries: Vec<Entry> = problems.into_iter().map(from_problem).collect();
    let locators: Vec<_> = directories.iter().map(|it| (it.root(), Locator::new(it))).collect();
    entries.extend(findings.into_iter().map(|finding| from_finding(&locators, finding)));
    entries.sort_by(|a, b| (a.severity, &a.file, a.line).cmp(&(b.severity, &b.file, b.line)));
    let errors = entries.iter().filter(|entry| entry.severity == Severity::Error).count();
    match arguments.output {
        Output::Text => {
            let lines: String = entries.iter().map(|entry| format!("{}\n", text(entry))).collect();
            let warnings = entries.len() - errors;
            print(&format!("{lines}{errors} errors, {warnings} warnings\n"))?;
        }
        Output::Json => {
            print(&format!("{:#}\n", Value::Array(entries.iter().map(json_entry).collect())))?
        }
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn from_problem(problem: Problem) -> Entry {
    let Problem { file, line, object, field, message } = problem;
    let (severity, reason) = (Severity::Error, "Unreadable");
    Entry { severity, file: Some(file), line: Some(line), object, field, reason, message }
}

fn from_finding(locators: &[(&Path, Locator<'_>)], finding: Finding) -> Entry {
    let Finding { severity, object, field, reason, message, .. } = finding;
    let place = locators.iter().find_map(|(root, locator)| {
        let (file, line) = locator.locate(&object, &field)?;
        Some((if file.as_os_str().is_empty() { root.to_path_buf() } else { root.join(file) }, line))
    });
    let (file, line) = place.unzip();
    Entry { severity, file, line, object: Some(object), field, reason, message }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn text(entry: &Entry) -> String {
    let place =
        entry.file.as_ref().map(|file| format!("{}:{}: ", file.display(), entry.line.unwrap_or(1)));
    let object = entry.object.as_ref().map(|object| format!("{object}: "));
    let field =
        Some(&entry.field).filter(|field| !field.is_empty()).map(|field| format!("{field}: "));
    let parts = [place, Some(format!("{}: ", word(entry.severity))), object, field];
    let parts: String = parts.into_iter().flatten().collect();
    format!("{parts}{} ({})", entry.message, entry.reason)
}

fn json_entry(entry: &Entry) -> Value {
    json!({
        "severity": word(entry.severity),
        "file": entry.file,
        "line": entry.line,
        "kind": entry.object.as_ref().map(|object| object.kind.to_string()),
        "namespace": entry.object.as_ref().map(|object| &object.name.namespace),
        "name": entry.object.as_ref().map(|object| &object.name.name),
        "field": entry.field,
        "reason": entry.reason,
        "message": entry.message,
    })
}
