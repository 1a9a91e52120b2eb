//! Compiling depends on what there is, not on the order in which it came; and bytes from outside never panic.

use std::fmt::Write;

use certmap::api::{CertificateField, MatchRule};
use certmap::compile::{Compiled, Object, PolicyObject, Reuse, World, compile};
use certmap::identity::{PeerCertificate, read_certificates};
use certmap::policy::{ManyToOneMapping, ManyToOneMappings, Rule};
use certmap::source::Directory;
use proptest::prelude::*;
use rcgen::DnType;
use rustls::pki_types::CertificateDer;

use super::support::pki::{Ca, leaf, named};
use super::support::{REQUIRE, Site};

fn objects(world: &World) -> Vec<Object> {
    let policies = world.policies.values().filter_map(|policy| match policy {
        PolicyObject::Readable(policy) => Some(Object::Policy(policy.clone())),
        PolicyObject::Unreadable { .. } => None,
    });
    let mut all: Vec<Object> = policies.collect();
    all.extend(world.config_maps.values().cloned().map(Object::ConfigMap));
    all.extend(world.endpoint_slices.values().cloned().map(Object::EndpointSlice));
    all.extend(world.ingresses.values().cloned().map(Object::Ingress));
    all.extend(world.ingress_classes.values().cloned().map(Object::IngressClass));
    all.extend(world.route_policies.values().filter_map(|policy| match policy {
        PolicyObject::Readable(policy) => Some(Object::RoutePolicy(policy.clone())),
        PolicyObject::Unreadable { .. } => None,
    }));
    all.extend(world.secrets.values().cloned().map(Object::Secret));
    all.extend(world.services.values().cloned().map(Object::Service));
    all
}

fn told(compiled: &Compiled) -> String {
    let mut dump = compiled.snapshot.dump();
    dump["generation"] = 0.into();
    let mut text = dump.to_string();
    write!(text, "{:?}", compiled.findings).unwrap();
    text
}

#[test]
fn the_order_of_objects_does_not_matter_nor_what_was_compiled_before() {
    let site = Site::with_alice(REQUIRE);
    site.write(
        "more.yaml",
        &super::support::manifests::ingress("more", "app.test", "/more", "gone"),
    );
    for name in ["first", "second"] {
        let spec = "timeouts: {request: 7s}\nerrorPages: [{codes: [4xx], configMapRef: {name: corporate-ca, key: ca.crt}}]";
        site.write(
            &format!("route-{name}.yaml"),
            &super::support::manifests::route_policy(name, "more", spec),
        );
    }
    let world = Directory::new(&site.manifests()).rescan().unwrap().world;
    let options = certmap::app::options(true, certmap::app::Rules::default()).unwrap();
    let whole = compile(&world, &Reuse::default(), &options).unwrap();
    let mut all = objects(&world);
    for round in 0..20 {
        let by = round % all.len();
        all.rotate_left(by);
        if round % 2 == 1 {
            all.reverse();
        }
        let (mut grown, mut reuse) = (World::default(), Reuse::default());
        for object in &all {
            grown.apply(object.clone());
            reuse = compile(&grown, &reuse, &options).unwrap().reuse;
        }
        assert_eq!(
            told(&compile(&grown, &reuse, &options).unwrap()),
            told(&whole),
            "round {round}"
        );
    }
}

type Criteria = (bool, u8, String, bool);

fn mapping(index: usize, criteria: &[Criteria]) -> ManyToOneMapping {
    let rule = |(issuer, attribute, text, case_sensitive): &Criteria| {
        let rule = MatchRule {
            certificate_field: if *issuer {
                CertificateField::Issuer
            } else {
                CertificateField::Subject
            },
            certificate_sub_field: ["CN", "O", "OU"][usize::from(*attribute)].to_owned(),
            match_criteria: text.clone(),
            compare_case_sensitive: *case_sensitive,
        };
        Rule::new(&rule).unwrap()
    };
    let rules = criteria.iter().map(rule).collect();
    ManyToOneMapping { name: index.to_string().into(), policy: "p".into(), rules, account: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_index_finds_what_comparing_in_order_finds(
        lists in prop::collection::vec(prop::collection::vec((any::<bool>(), 0_u8..3, "[aAb*?]{1,2}", any::<bool>()), 1..3), 1..12),
        values in prop::collection::vec("[aAb]{1,2}", 3),
        unit in prop::collection::vec("[aAb]{1,2}", 0..2),
    ) {
        let all: Vec<ManyToOneMapping> = lists.iter().enumerate().map(|(index, list)| mapping(index, list)).collect();
        let ca = Ca::new(&values[0]);
        let mut name = vec![(DnType::CommonName, values[1].as_str().into()), (DnType::OrganizationName, values[2].as_str().into())];
        name.extend(unit.iter().map(|unit| (DnType::OrganizationalUnitName, unit.as_str().into())));
        let der = CertificateDer::from(ca.issue(named(&name)).der);
        let certificate = PeerCertificate::parse(&[der]).unwrap();
        let in_order = all.iter().position(|mapping| mapping.mismatch(&certificate).is_none());
        let found = ManyToOneMappings::new(all).find(&certificate).map(|(index, _)| index);
        prop_assert_eq!(found, in_order);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn mutated_certificates_are_read_or_refused(place in 0_usize..600, octet: u8, cut in 0_usize..600, seed in 0_u8..4) {
        let ders = certificates();
        let mut der = ders[usize::from(seed) % ders.len()].clone();
        let length = der.len();
        der[place % length] = octet;
        der.truncate(length - cut % 8);
        if let Ok(certificate) = PeerCertificate::parse(&[CertificateDer::from(der.clone())]) {
            let text = format!("{} {}", certificate.subject, certificate.issuer);
            prop_assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        drop(read_certificates(&der));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        drop(read_certificates(&bytes));
        drop(PeerCertificate::parse(&[CertificateDer::from(bytes)]));
    }
}

fn certificates() -> &'static [Vec<u8>] {
    static MADE: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    MADE.get_or_init(|| {
        let ca = Ca::new("Mutants");
        let mut rich = leaf("x,CN=\"y\"\n");
        rich.subject_alt_names.push(rcgen::SanType::Rfc822Name("a@b.test".try_into().unwrap()));
        rich.subject_alt_names.push(rcgen::SanType::OtherName((
            vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3],
            rcgen::OtherNameValue::Utf8String("a@b".into()),
        )));
        vec![ca.der(), ca.issue(leaf("plain")).der, ca.issue(rich).der]
    })
}
