//! Rules over names: the first mapping whose rules all match decides.
//!
//! Looking at every mapping would make a long list slow, so each is filed under its rarest criterion without wildcards
//! and only met by a certificate that has that very value; mappings of wildcards alone are met by every certificate.
//! Which mapping decides is the same as if all were compared in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::account::Account;
use super::pattern::fold;
use super::rule::{Mismatch, Rule, name};
use crate::api::CertificateField;
use crate::identity::{AttributeType, PeerCertificate};

/// One mapping.
#[derive(Clone, Debug)]
pub struct ManyToOneMapping {
    /// Its name in the policy.
    pub name: Box<str>,
    /// The policy object that it stands in.
    pub policy: Arc<str>,
    /// All must match. Without any, everything does.
    pub rules: Box<[Rule]>,
    /// Whom the certificate stands for; none refuses (403.12).
    pub account: Option<Arc<Account>>,
}

impl ManyToOneMapping {
    fn matches(&self, certificate: &PeerCertificate) -> bool {
        self.rules.iter().all(|rule| rule.matches(certificate))
    }

    /// The first rule that does not match.
    #[must_use]
    pub fn mismatch(&self, certificate: &PeerCertificate) -> Option<Mismatch> {
        self.rules.iter().find_map(|rule| rule.mismatch(certificate))
    }
}

/// The many-to-one mappings of a policy, in order.
#[derive(Clone, Debug, Default)]
pub struct ManyToOneMappings {
    mappings: Box<[ManyToOneMapping]>,
    tables: Box<[Table]>,
    /// Indices of mappings without a literal criterion, ascending.
    unindexed: Box<[u32]>,
}

/// The literal values of one attribute, and the mappings filed under each (ascending).
#[derive(Clone, Debug)]
struct Table {
    field: CertificateField,
    attribute: AttributeType,
    exact: HashMap<Box<str>, Vec<u32>>,
    folded: HashMap<Box<str>, Vec<u32>>,
}

/// Attribute, value (folded where case does not matter), case-sensitive or not.
type Criterion<'a> = (CertificateField, &'a AttributeType, &'a str, bool);

impl ManyToOneMappings {
    /// Takes the mappings in their order and files them.
    #[must_use]
    pub fn new(mappings: Vec<ManyToOneMapping>) -> Self {
        let mut occurrences: HashMap<Criterion<'_>, usize> = HashMap::new();
        for criterion in mappings.iter().flat_map(|mapping| &mapping.rules).filter_map(criterion) {
            *occurrences.entry(criterion).or_default() += 1;
        }
        let mut tables: BTreeMap<(CertificateField, &AttributeType), Table> = BTreeMap::new();
        let mut unindexed = Vec::new();
        for (mapping, index) in mappings.iter().zip(0_u32..) {
            let rarest =
                mapping.rules.iter().filter_map(criterion).min_by_key(|c| occurrences.get(c));
            let Some((field, attribute, value, case_sensitive)) = rarest else {
                unindexed.push(index);
                continue;
            };
            let table =
                tables.entry((field, attribute)).or_insert_with(|| Table::new(field, attribute));
            table.file(value, case_sensitive, index);
        }
        let tables = tables.into_values().collect();
        Self { tables, unindexed: unindexed.into(), mappings: mappings.into() }
    }

    /// The first mapping that matches, and its place.
    #[must_use]
    pub fn find(&self, certificate: &PeerCertificate) -> Option<(usize, &ManyToOneMapping)> {
        let mut filed: Vec<u32> = Vec::new();
        self.tables.iter().for_each(|table| table.meet(certificate, &mut filed));
        filed.sort_unstable();
        let first = |indices: &[u32]| {
            indices
                .iter()
                .find(|&&index| self.get(index).is_some_and(|m| m.matches(certificate)))
                .copied()
        };
        let filed = first(&filed);
        let limit = filed
            .map_or(self.unindexed.len(), |index| self.unindexed.partition_point(|&u| u < index));
        let wild = self.unindexed.get(..limit).and_then(first);
        let index = wild.or(filed)?;
        self.get(index).map(|mapping| (index as usize, mapping))
    }

    /// All mappings, in order.
    #[must_use]
    pub fn all(&self) -> &[ManyToOneMapping] {
        &self.mappings
    }

    fn get(&self, index: u32) -> Option<&ManyToOneMapping> {
        self.mappings.get(index as usize)
    }
}

impl Table {
    fn new(field: CertificateField, attribute: &AttributeType) -> Self {
        Self { field, attribute: attribute.clone(), exact: HashMap::new(), folded: HashMap::new() }
    }

    fn file(&mut self, value: &str, case_sensitive: bool, index: u32) {
        let values = if case_sensitive { &mut self.exact } else { &mut self.folded };
        values.entry(value.into()).or_default().push(index);
    }

    fn meet(&self, certificate: &PeerCertificate, met: &mut Vec<u32>) {
        for value in name(certificate, self.field).values(&self.attribute) {
            met.extend(self.exact.get(value).into_iter().flatten());
            if !self.folded.is_empty() {
                let folded: String = value.chars().map(fold).collect();
                met.extend(self.folded.get(folded.as_str()).into_iter().flatten());
            }
        }
    }
}

fn criterion(rule: &Rule) -> Option<Criterion<'_>> {
    let literal = rule.pattern.literal()?;
    Some((rule.field, &rule.attribute, literal, rule.pattern.is_case_sensitive()))
}
