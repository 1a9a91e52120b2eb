//! A policy's directory, and what becomes of an account that is found there.

use std::sync::Arc;

use super::pattern::Pattern;
use rustls::pki_types::UnixTime;

use crate::auth::{
    Answer, Answers, Asked, Directory, DirectoryAccount, DirectoryGroup, DirectoryQuestion,
    DirectoryVerdict, Known, Principal, Question, judge_certificate, judge_logon,
};

/// `spec.activeDirectory`, compiled.
#[derive(Debug)]
pub struct DirectoryUse {
    /// Whether certificates are mapped by it.
    pub maps: bool,
    /// How it is asked; otherwise why it cannot be.
    pub directory: Result<Arc<Directory>, Box<str>>,
    /// Which groups become part of the identity; empty for all.
    pub groups: Box<[Pattern]>,
}

/// What a directory leads to.
#[derive(Debug)]
pub(super) enum DirectoryOutcome {
    /// An account that can be used, and in a few words how it was found.
    Found(Principal, String),
    /// It is nobody's.
    NotFound,
    /// It is somebody's, and that is of no use: why.
    Refused(String),
    /// The directory has to say.
    Ask(DirectoryQuestion),
    /// It cannot be asked: why.
    Unavailable(Box<str>),
}

impl DirectoryUse {
    /// Judges what the directory answered; the question, where it was not asked yet.
    pub(super) fn outcome(
        &self,
        asked: Asked,
        answers: &Answers,
        now: UnixTime,
    ) -> DirectoryOutcome {
        let directory = match &self.directory {
            Ok(directory) => directory.clone(),
            Err(problem) => return DirectoryOutcome::Unavailable(problem.clone()),
        };
        let question = DirectoryQuestion { directory, asked };
        let Some(Answer::Directory(answer)) = answers.to(&Question::Directory(question.clone()))
        else {
            return DirectoryOutcome::Ask(question);
        };
        let DirectoryQuestion { directory, asked } = &question;
        let (settings, now) =
            (directory.settings(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let verdict = match asked {
            Asked::Certificate(peer) => judge_certificate(settings, peer, answer, now),
            Asked::Logon(name, _) => judge_logon(settings, name, answer, now),
        };
        match verdict {
            DirectoryVerdict::Found(found) => {
                let principal = self.principal(found.account);
                let how = found.form.map_or_else(|| "password".to_owned(), |form| form.to_string());
                let note = format!("{} by {how}", principal.name());
                DirectoryOutcome::Found(principal, note)
            }
            DirectoryVerdict::NotFound => DirectoryOutcome::NotFound,
            DirectoryVerdict::Refused(refusal) => DirectoryOutcome::Refused(refusal.to_string()),
        }
    }

    /// Who the account's bearer is: `CORP\alice`, with the groups that the backend is to be told of, and the others.
    pub(super) fn principal(&self, account: &DirectoryAccount) -> Principal {
        let name = match &account.domain {
            Some(domain) => format!("{domain}\\{}", account.name),
            None => account.name.to_string(),
        };
        let (told, further): (Vec<&DirectoryGroup>, Vec<&DirectoryGroup>) =
            account.groups.iter().partition(|group| self.wants(group));
        let known = Known {
            domain: account.domain.as_deref().map(Into::into),
            account: Some(account.name.clone()),
            upn: account.upn.clone(),
            sid: Some(account.sid.clone()),
            groups: names(&told),
            further_groups: names(&further),
        };
        Principal::known(name, known)
    }

    fn wants(&self, group: &DirectoryGroup) -> bool {
        let name = group_name(group);
        let bare = name.split_once('\\').map_or(&*name, |(_, bare)| bare);
        let fits = |pattern: &Pattern| pattern.matches(&name) || pattern.matches(bare);
        self.groups.is_empty() || self.groups.iter().any(fits)
    }
}

fn names(groups: &[&DirectoryGroup]) -> Box<[Arc<str>]> {
    let mut names: Vec<Arc<str>> = groups.iter().map(|group| group_name(group)).collect();
    names.sort_unstable();
    names.dedup();
    names.into()
}

/// A group whose name is not known goes by its SID, so that a rule that denies it can still name it.
fn group_name(group: &DirectoryGroup) -> Arc<str> {
    group.name.clone().unwrap_or_else(|| group.sid.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(wanted: &[&str]) -> Vec<String> {
        let group = |sid: &str, name: Option<&str>| DirectoryGroup {
            sid: sid.into(),
            name: name.map(Into::into),
        };
        let account = DirectoryAccount {
            name: "alice".into(),
            domain: Some("CORP".into()),
            groups: [
                group("S-1-5-21-1-513", Some("CORP\\Staff")),
                group("S-1-5-21-1-514", Some("CORP\\HR-Readers")),
                group("S-1-5-21-9-515", None),
            ]
            .into(),
            ..DirectoryAccount::default()
        };
        let patterns = wanted.iter().map(|text| Pattern::new(text, false)).collect();
        let it = DirectoryUse { maps: true, directory: Err("none".into()), groups: patterns };
        let principal = it.principal(&account);
        assert_eq!((principal.name(), principal.account()), ("CORP\\alice", "alice"));
        assert_eq!(principal.all_groups().count(), 3, "authorization sees all of them");
        principal.groups().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_groups_or_those_that_are_wanted_are_told() {
        assert_eq!(groups(&[]), ["CORP\\HR-Readers", "CORP\\Staff", "S-1-5-21-9-515"]);
        assert_eq!(groups(&["staff"]), ["CORP\\Staff"]);
        assert_eq!(groups(&["CORP\\hr-*", "S-1-5-21-9-*"]), ["CORP\\HR-Readers", "S-1-5-21-9-515"]);
        assert!(groups(&["OTHER\\*"]).is_empty());
    }
}
