//! Findings about a policy at one target → its three conditions there. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::compile::{Finding, PolicySummary, Severity};

/// More findings than this in one message help nobody.
const MOST_IN_MESSAGE: usize = 3;
/// The API server's own limit is 32768.
const LONGEST_MESSAGE: usize = 1024;

/// Findings that say a policy as a whole is not in force.
const NOT_ACCEPTED: &[&str] = &["Invalid", "Unreadable", "Conflicted", "TargetNotFound"];
/// Findings about objects that a policy refers to.
const REFERENCES: &[&str] = &[
    "AccountUnusable",
    "AffinityKeyUnusable",
    "BackendTLSUnusable",
    "CABundleInvalid",
    "CABundleUnresolved",
    "CertificateInvalid",
    "CertificateUnresolved",
    "ClientCertificateInvalid",
    "CredentialsUnusable",
    "DirectoryUnusable",
    "ErrorPageUnresolved",
    "ExternalUnresolved",
    "KeysUnresolved",
    "NoTrust",
    "SigningKeyIgnored",
    "SigningKeyUnusable",
];
/// Findings that leave a policy in force that admits nobody, nobody by a certificate, or lets nothing be sent.
const CLOSED: &[&str] =
    &["BackendTLSUnusable", "DefaultUnusable", "NoTrust", "OtherUnreadable", "SigningKeyUnusable"];

/// Warnings about doors that stand open: said even where all is as it was written.
const OPEN_DOORS: &[&str] = &["AnonymousFallback"];

/// Accepted, ResolvedRefs and Programmed; their times are the earlier ones' where nothing turned.
pub(super) fn conditions(
    findings: &[&Finding],
    figures: &str,
    generation: Option<i64>,
    (earlier, now): (&[Condition], Timestamp),
) -> Vec<Condition> {
    let of = |reasons: &[&str]| -> Vec<&Finding> {
        findings.iter().filter(|finding| reasons.contains(&finding.reason)).copied().collect()
    };
    let (refusing, references, closed) = (of(NOT_ACCEPTED), of(REFERENCES), of(CLOSED));
    let errors: Vec<&Finding> =
        findings.iter().filter(|finding| finding.severity == Severity::Error).copied().collect();
    let accepted = verdict(&refusing, "Accepted", "the policy is in force");
    let resolved = verdict(&references, "ResolvedRefs", "every object that it refers to is there");
    let programmed = match (refusing.first(), closed.first(), errors.is_empty()) {
        (Some(first), ..) => (false, first.reason, message(&refusing)),
        (None, Some(first), _) => (false, first.reason, message(&errors)),
        (None, None, true) => {
            let doors = of(OPEN_DOORS);
            let warning =
                if doors.is_empty() { String::new() } else { format!("; {}", message(&doors)) };
            (true, "Programmed", format!("{figures}{warning}"))
        }
        (None, None, false) => (true, "PartiallyProgrammed", message(&errors)),
    };
    [("Accepted", accepted), ("ResolvedRefs", resolved), ("Programmed", programmed)]
        .into_iter()
        .map(|(kind, (is, reason, message))| {
            let status = if is { "True" } else { "False" };
            let before = earlier.iter().find(|it| it.type_ == kind && it.status == status);
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                observed_generation: generation,
                last_transition_time: before.map_or_else(
                    || Time(whole_seconds(now)),
                    |before| before.last_transition_time.clone(),
                ),
            }
        })
        .collect()
}

/// What is said of a policy of which there is nothing to say.
pub(super) fn in_figures(summary: Option<&PolicySummary>) -> String {
    match summary.map_or(0, |summary| summary.mappings) {
        1 => "1 mapping is in force".to_owned(),
        mappings => format!("{mappings} mappings are in force"),
    }
}

/// The API server keeps no fractions.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn verdict(against: &[&Finding], well: &'static str, words: &str) -> (bool, &'static str, String) {
    match against.first() {
        Some(first) => (false, first.reason, message(against)),
        None => (true, well, words.to_owned()),
    }
}

fn message(findings: &[&Finding]) -> String {
    let sentence = |finding: &&Finding| {
        if finding.field.is_empty() {
            finding.message.clone()
        } else {
            format!("{}: {}", finding.field, finding.message)
        }
    };
    let shown: Vec<String> = findings.iter().take(MOST_IN_MESSAGE).map(sentence).collect();
    let more = findings.len().saturating_sub(MOST_IN_MESSAGE);
    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    shorten(&shown.join("; "), LONGEST_MESSAGE - more.len()) + &more
}

/// At most so many octets, cut between characters.
pub(super) fn shorten(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest.saturating_sub(3)).rev().find(|end| text.is_char_boundary(*end));
    let (kept, _) = text.split_at_checked(end.unwrap_or_default()).unwrap_or_default();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{ObjectKind, ObjectName, ObjectRef};

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shorten("ééé", 5), "é…");
        let finding = |_| Finding {
            severity: Severity::Error,
            object: ObjectRef {
                kind: ObjectKind::CertMappingPolicy,
                name: ObjectName::new("web", "p"),
            },
            target: None,
            field: "x".repeat(900),
            reason: "NoTrust",
            message: "none".to_owned(),
        };
        let many: Vec<Finding> = (0..9).map(finding).collect();
        let text = message(&many.iter().collect::<Vec<_>>());
        assert!(text.len() <= LONGEST_MESSAGE && text.ends_with("(and 6 more)"), "{text}");
    }
}
