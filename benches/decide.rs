//! What a decision and a compilation cost, as ratios within one run.
//!
//! `cargo bench --bench decide` prints the table of docs/performance.md; with `--quick` it is a smoke check. It fails
//! where a figure misses its aim by more than the noise of a shared machine explains.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures time, prints, and fails by panicking"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certmap::api::{CertificateField, MatchRule};
use certmap::app;
use certmap::auth::{
    Answer, Answers, Asked, Directory, DirectoryAccount, DirectoryAnswer, DirectoryBind,
    DirectoryGroup, DirectoryQuestion, DirectorySettings, Filetime, Keeping, Principal, Question,
    Secret, SigningKey, certificate_filter,
};
use certmap::compile::{Object, Reuse, World, compile};
use certmap::identity::{Fingerprint, PeerCertificate};
use certmap::policy::{
    Account, Authorization, ClientCertificate, Decision, DirectoryUse, ForwardSettings, Guard,
    ManyToOneMapping, ManyToOneMappings, OneToOneMapping, OneToOneMappings, Pattern, Policy, Rule,
    SignedIdentity, SigningKeys, SslFlags, Statement, Subject, TrustBundle, decide,
};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, from_value, json};

struct People {
    trust: Arc<TrustBundle>,
    client: ClientCertificate,
    fingerprint: Fingerprint,
}

fn people() -> People {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name.push(DnType::OrganizationName, "ZeroSSL");
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(Vec::new()).unwrap();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.distinguished_name.push(DnType::OrganizationName, "Contoso");
    leaf.distinguished_name.push(DnType::CommonName, "user-9999");
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &ca).unwrap();
    let trust = TrustBundle::new(&[CertificateDer::from(ca.der().to_vec())], 3).unwrap();
    let peer = PeerCertificate::parse(&[CertificateDer::from(leaf.der().to_vec())]).unwrap();
    let fingerprint = peer.fingerprint;
    People { trust: Arc::new(trust), client: ClientCertificate::new(Ok(peer)), fingerprint }
}

fn account() -> Arc<Account> {
    Arc::new(Account::Usable { principal: Principal::named("azureuser"), password: None })
}

/// So many mappings, the client's among them.
fn one_to_one(people: &People, number: usize) -> OneToOneMappings {
    let (account, policy): (_, Arc<str>) = (account(), "web/bench".into());
    let mut mappings = OneToOneMappings::default();
    for index in 0..number {
        let fingerprint = if index == number / 2 {
            people.fingerprint
        } else {
            Fingerprint::of(&index.to_be_bytes())
        };
        let name = format!("mapping-{index}").into();
        mappings
            .add(
                fingerprint,
                OneToOneMapping { name, policy: policy.clone(), account: account.clone() },
            )
            .unwrap();
    }
    mappings
}

fn rule(field: CertificateField, attribute: &str, criteria: &str) -> Rule {
    let (certificate_sub_field, match_criteria) = (attribute.to_owned(), criteria.to_owned());
    Rule::new(&MatchRule {
        certificate_field: field,
        certificate_sub_field,
        match_criteria,
        compare_case_sensitive: true,
    })
    .unwrap()
}

fn many_to_one(number: usize, rules: impl Fn(usize) -> Vec<Rule>) -> ManyToOneMappings {
    let (account, policy): (_, Arc<str>) = (account(), "web/bench".into());
    let mapping = |index: usize| ManyToOneMapping {
        name: format!("mapping-{index}").into(),
        policy: policy.clone(),
        rules: rules(index).into(),
        account: Some(account.clone()),
    };
    ManyToOneMappings::new((0..number).map(mapping).collect())
}

fn guard(people: &People, one_to_one: OneToOneMappings, many_to_one: ManyToOneMappings) -> Guard {
    Guard::Policed([Arc::new(policy_of(people, one_to_one, many_to_one))].into())
}

fn policy_of(
    people: &People,
    one_to_one: OneToOneMappings,
    many_to_one: ManyToOneMappings,
) -> Policy {
    Policy {
        name: "web/bench".into(),
        flags: SslFlags::from_iter([
            certmap::api::SslFlag::Ssl,
            certmap::api::SslFlag::SslNegotiateCert,
        ]),
        https_redirect: false,
        trust: Some(people.trust.clone()),
        advertise_issuers: true,
        one_to_one: Arc::new(one_to_one),
        many_to_one: Arc::new(many_to_one),
        directory: None,
        admit_any_verified: None,
        modules: Vec::new(),
        authorization: Authorization::default(),
        forward: Arc::new(ForwardSettings::default()),
    }
}

/// The median time of one call, of rounds that take turns.
fn measure(calls: &[(&str, &dyn Fn())], round: Duration, rounds: usize) -> Vec<f64> {
    let mut times = vec![Vec::new(); calls.len()];
    for _ in 0..rounds {
        for ((_, call), times) in calls.iter().zip(&mut times) {
            let (started, mut count) = (Instant::now(), 0_u32);
            while started.elapsed() < round {
                (0..16).for_each(|_| call());
                count += 16;
            }
            times.push(started.elapsed().as_secs_f64() * 1e9 / f64::from(count));
        }
    }
    times
        .into_iter()
        .map(|mut times| {
            times.sort_by(f64::total_cmp);
            times.get(rounds / 2).copied().unwrap()
        })
        .collect()
}

/// RFC 4515, 3.
fn unescaped(filter: &str) -> String {
    let mut parts = filter.split('\\');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (code, rest) = part.split_at(2);
        text + &char::from(u8::from_str_radix(code, 16).unwrap()).to_string() + rest
    })
}

/// A policy that asks a directory, and what it answered: an account with 40 groups, of which a tenth is told.
fn by_directory(people: &People) -> (Guard, Answers) {
    let settings = DirectorySettings {
        urls: Vec::new(),
        cas: Vec::new(),
        server_name: None,
        bind: DirectoryBind::Simple { name: "x".into(), password: Secret::new("y".into()) },
        base_dn: None,
        timeout: Duration::ZERO,
        keeping: Keeping {
            found: Duration::ZERO,
            not_found: Duration::ZERO,
            stale: Duration::ZERO,
        },
        weak: Vec::new(),
        refuse_expired_password: false,
    };
    let directory = Arc::new(Directory::new(settings));
    let peer = people.client.peer.as_ref().unwrap();
    let filter = certificate_filter(peer, &[]);
    let mapping = filter.split("(altSecurityIdentities=").find(|clause| clause.contains("SR"));
    let mapping = unescaped(mapping.unwrap().trim_end_matches(')'));
    let group = |index: usize| DirectoryGroup {
        sid: format!("S-1-5-21-1-2-3-{index}").into(),
        name: Some(format!("CORP\\group-{index}").into()),
    };
    let account = DirectoryAccount {
        name: "alice".into(),
        domain: Some("CORP".into()),
        sid: "S-1-5-21-1-2-3-1104".into(),
        alt_security_identities: vec![mapping.into()],
        control: Some(0x200),
        computed: Some(0),
        expires: Some(Filetime(0)),
        groups: (0..40).map(group).collect(),
        ..DirectoryAccount::default()
    };
    let answer = DirectoryAnswer { accounts: [account].into(), ..DirectoryAnswer::default() };
    let mut answers = Answers::default();
    let asked = Asked::Certificate(peer.clone());
    let question = DirectoryQuestion { directory: directory.clone(), asked };
    answers.add(Question::Directory(question), Answer::Directory(answer));
    let used = DirectoryUse {
        maps: true,
        directory: Ok(directory),
        groups: [Pattern::new("group-1*", false)].into(),
    };
    let none = (OneToOneMappings::default(), many_to_one(0, |_| Vec::new()));
    let policy = Policy { directory: Some(Arc::new(used)), ..policy_of(people, none.0, none.1) };
    (Guard::Policed([Arc::new(policy)].into()), answers)
}

fn admits(guard: &Guard, people: &People, answers: Answers, admitted: bool) -> impl Fn() {
    let now = UnixTime::now();
    let request = Arc::default();
    let decided = move |guard: &Guard, people: &People| {
        let subject = Subject {
            https: true,
            cipher_bits: 256,
            certificate: Some(&people.client),
            credentials: None,
            request: &request,
            answers: &answers,
        };
        decide(guard, &subject, now).0
    };
    assert_eq!(matches!(decided(guard, people), Decision::Allow(_)), admitted);
    move || drop(black_box(decided(guard, people)))
}

fn signs() -> impl Fn() {
    let pem = KeyPair::generate().unwrap().serialize_pem();
    let current = SigningKey::from_pem(pem.as_bytes()).unwrap();
    let signed = SignedIdentity {
        header: "x-certmap-identity".into(),
        audience: None,
        issuer: "certmap".into(),
        lifetime: 60,
        publish: false,
        keys: Ok(SigningKeys { current, others: Vec::new() }),
    };
    let groups: Vec<Arc<str>> = (0..10).map(|n| format!("CORP\\group-{n}").into()).collect();
    move || {
        let statement = Statement {
            user: "CORP\\alice",
            groups: &groups,
            mechanism: "oneToOne",
            policy: Some("web/bench"),
            certificate: Some(Fingerprint::of(b"x")),
            service: "web/echo",
            id: "384f18bddf1f635d0000000000000003",
            now: UnixTime::now(),
        };
        drop(black_box(signed.token(&statement)));
    }
}

fn decisions(people: &People, round: Duration, rounds: usize) -> Vec<(String, f64)> {
    let none = || many_to_one(0, |_| Vec::new());
    let tables: Vec<(usize, OneToOneMappings)> =
        [1, 100, 1_000, 100_000].map(|n| (n, one_to_one(people, n))).into();
    let finds: Vec<_> = tables
        .iter()
        .map(|(_, table)| {
            move || {
                black_box(table.find(black_box(&people.fingerprint)));
            }
        })
        .collect();
    let guards: Vec<Guard> =
        tables.iter().map(|(_, table)| guard(people, table.clone(), none())).collect();
    let one: Vec<_> =
        guards.iter().map(|guard| admits(guard, people, Answers::default(), true)).collect();
    let subject = |criteria: String| rule(CertificateField::Subject, "CN", &criteria);
    let issuer = || rule(CertificateField::Issuer, "O", "ZeroSSL");
    let many: Vec<(&str, Guard, bool)> = [
        (
            "one literal each, the last matches",
            many_to_one(10_000, |i| vec![subject(format!("user-{i}"))]),
            true,
        ),
        (
            "one literal each, none matches",
            many_to_one(10_000, |i| vec![subject(format!("nobody-{i}"))]),
            false,
        ),
        (
            "a literal in common and one each",
            many_to_one(10_000, |i| vec![issuer(), subject(format!("user-{i}"))]),
            true,
        ),
        (
            "wildcards alone, none matches",
            many_to_one(10_000, |i| vec![subject(format!("*nobody-{i}"))]),
            false,
        ),
    ]
    .map(|(name, mappings, matches)| {
        (name, guard(people, OneToOneMappings::default(), mappings), matches)
    })
    .into();
    let many_calls: Vec<_> = many
        .iter()
        .map(|(_, guard, matches)| admits(guard, people, Answers::default(), *matches))
        .collect();
    let judge = || {
        drop(black_box(people.trust.judge(people.client.peer.as_ref().unwrap(), UnixTime::now())))
    };
    let sign = signs();
    let (asking, answers) = by_directory(people);
    let directory = admits(&asking, people, answers, true);
    let mut names: Vec<String> =
        tables.iter().map(|(n, _)| format!("find among {n} fingerprints")).collect();
    names.extend(tables.iter().map(|(n, _)| format!("decide, one-to-one among {n}")));
    names.extend(many.iter().map(|(name, ..)| format!("decide, 10000 many-to-one: {name}")));
    names.push("judge a chain anew (what a connection pays once)".to_owned());
    names.push("sign an identity (what a request pays)".to_owned());
    names.push("decide, by a directory's answer with 40 groups".to_owned());
    let mut calls: Vec<(&str, &dyn Fn())> = Vec::new();
    let all =
        finds.iter().map(|call| call as &dyn Fn()).chain(one.iter().map(|call| call as &dyn Fn()));
    let all =
        all.chain(many_calls.iter().map(|call| call as &dyn Fn())).chain([&judge as &dyn Fn()]);
    let all = all.chain([&sign as &dyn Fn(), &directory]);
    calls.extend(names.iter().map(String::as_str).zip(all));
    let times = measure(&calls, round, rounds);
    names.into_iter().zip(times).collect()
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(from_value(value).unwrap())
}

/// 3000 Ingresses, Services and EndpointSlices, 500 policies and Secrets.
fn world() -> World {
    let mut world = World::default();
    let meta =
        |name: &str, index: usize| json!({"name": format!("{name}-{index}"), "namespace": "web"});
    for i in 0..3_000 {
        let mut slice = meta("svc", i);
        slice["labels"] = json!({"kubernetes.io/service-name": format!("svc-{i}")});
        let backend = json!({"service": {"name": format!("svc-{i}"), "port": {"number": 80}}});
        let rules = json!([{"host": format!("h{i}.test"), "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]);
        world.apply(Object::Ingress(object(json!({"metadata": meta("ing", i), "spec": {"ingressClassName": "certmap", "rules": rules}}))));
        world.apply(Object::Service(object(
            json!({"metadata": meta("svc", i), "spec": {"ports": [{"port": 80}]}}),
        )));
        let endpoints = json!([{"addresses": ["10.0.0.1"]}]);
        world.apply(Object::EndpointSlice(object(json!({"metadata": slice, "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints}))));
    }
    for i in 0..500 {
        let secret = json!({"metadata": meta("account", i), "type": "kubernetes.io/basic-auth", "data": {"username": "dQ==", "password": "cA=="}});
        world.apply(Object::Secret(object(secret)));
        world.apply(Object::Policy(object(policy(i, "user"))));
    }
    world
}

fn policy(index: usize, user: &str) -> Value {
    let targets: Vec<Value> = (0..6).map(|t| json!({"group": "networking.k8s.io", "kind": "Ingress", "name": format!("ing-{}", index * 6 + t)})).collect();
    let mapping = |m: usize| json!({"name": format!("m{m}"), "sha256": Fingerprint::of(&[index.to_be_bytes(), m.to_be_bytes()].concat()).to_string(), "account": {"userName": user, "secretRef": {"name": format!("account-{index}")}}});
    let mappings: Vec<Value> = (0..20).map(mapping).collect();
    json!({"apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy", "metadata": {"name": format!("p-{index}"), "namespace": "web"},
        "spec": {"targetRefs": targets, "sslFlags": ["Ssl"], "oneToOne": {"mappings": mappings}}})
}

fn compilations(rounds: usize) -> (f64, f64, f64) {
    let options = app::options(true, app::Rules::default()).unwrap();
    let (mut world, mut fresh, mut reused) = (world(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let started = Instant::now();
        let compiled = compile(&world, &Reuse::default(), &options).unwrap();
        fresh.push(started.elapsed().as_secs_f64());
        world.apply(Object::Policy(object(policy(7, &format!("user-{round}")))));
        let started = Instant::now();
        drop(black_box(compile(&world, &compiled.reuse, &options).unwrap()));
        reused.push(started.elapsed().as_secs_f64());
    }
    let mapping = |m: usize| json!({"name": format!("m{m}"), "sha256": Fingerprint::of(&m.to_be_bytes()).to_string(), "account": {"userName": "u"}});
    let mut large = policy(0, "u");
    large["spec"]["oneToOne"]["mappings"] = (0..100_000).map(mapping).collect();
    let mut world = World::default();
    world.apply(Object::Policy(object(large)));
    let started = Instant::now();
    drop(black_box(compile(&world, &Reuse::default(), &options).unwrap()));
    let large = started.elapsed().as_secs_f64();
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap()
    };
    (median(fresh), median(reused), large)
}

/// 1,000 hosts, 5,000 Ingresses, 100 policies with 100,000 mappings: anew, after an edit of one policy, after one endpoint's
/// change.
fn large_cluster(rounds: usize) -> [f64; 3] {
    let options = app::options(true, app::Rules::default()).unwrap();
    let meta = |name: String| json!({"name": name, "namespace": "web"});
    let policy = |index: usize, user: &str| {
        let targets: Vec<Value> = (0..10).map(|t| json!({"group": "networking.k8s.io", "kind": "Ingress", "name": format!("i-{}-0", index * 10 + t)})).collect();
        let mapping = |m: usize| json!({"name": format!("m{m}"), "sha256": Fingerprint::of(&[index, m].map(usize::to_be_bytes).concat()).to_string(), "account": {"userName": user}});
        let mappings: Vec<Value> = (0..1_000).map(mapping).collect();
        let policy = json!({"apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy", "metadata": meta(format!("p-{index}")),
            "spec": {"targetRefs": targets, "sslFlags": ["Ssl"], "oneToOne": {"mappings": mappings}}});
        Object::Policy(object(policy))
    };
    let slice = |address: String| {
        let metadata = json!({"name": "svc", "namespace": "web", "labels": {"kubernetes.io/service-name": "svc"}});
        Object::EndpointSlice(object(
            json!({"metadata": metadata, "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": [address]}]}),
        ))
    };
    let mut world = World::default();
    for (host, index) in (0..1_000).flat_map(|host| (0..5).map(move |index| (host, index))) {
        let service = if (host, index) == (0, 0) { "svc" } else { "other" };
        let backend = json!({"service": {"name": service, "port": {"number": 80}}});
        let rules = json!([{"host": format!("h{host}.test"), "http": {"paths": [{"path": format!("/{index}"), "pathType": "Prefix", "backend": backend}]}}]);
        world.apply(Object::Ingress(object(json!({"metadata": meta(format!("i-{host}-{index}")), "spec": {"ingressClassName": "certmap", "rules": rules}}))));
    }
    for name in ["svc", "other"] {
        world.apply(Object::Service(object(
            json!({"metadata": meta(name.to_owned()), "spec": {"ports": [{"port": 80}]}}),
        )));
    }
    (0..100).for_each(|index| world.apply(policy(index, "user")));
    let mut times = [const { Vec::new() }; 3];
    let mut compiled = compile(&world, &Reuse::default(), &options).unwrap();
    for round in 0..rounds {
        let changes = [policy(7, &format!("user-{round}")), slice(format!("10.0.0.{}", round + 1))];
        let started = Instant::now();
        drop(black_box(compile(&world, &Reuse::default(), &options).unwrap()));
        times[0].push(started.elapsed().as_secs_f64());
        for (change, times) in changes.into_iter().zip(&mut times[1..]) {
            world.apply(change);
            let started = Instant::now();
            compiled = compile(&world, &compiled.reuse, &options).unwrap();
            times.push(started.elapsed().as_secs_f64());
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// Resident octets that 100,000 fingerprint mappings take, each.
fn octets_per_mapping(people: &People) -> f64 {
    let resident = || -> f64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0
    };
    let before = resident();
    let tables: Vec<OneToOneMappings> = (0..5).map(|_| one_to_one(people, 100_000)).collect();
    let octets = (resident() - before) / 500_000.0;
    drop(black_box(tables));
    octets
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (round, rounds) =
        if quick { (Duration::from_millis(5), 5) } else { (Duration::from_millis(40), 31) };
    let people = people();
    let octets = octets_per_mapping(&people);
    let figures = decisions(&people, round, rounds);
    let of = |name: &str| {
        figures.iter().find(|(known, _)| known == name).map(|(_, time)| *time).expect("a figure")
    };
    let unit = of("decide, one-to-one among 100");
    println!("| what | ns | decide, one-to-one among 100 = 1 |\n| --- | --- | --- |");
    figures.iter().for_each(|(name, time)| println!("| {name} | {time:.0} | {:.2} |", time / unit));
    let (fresh, reused, large) = compilations(if quick { 1 } else { 7 });
    println!("\n| compile | ms | ratio |\n| --- | --- | --- |");
    println!("| 10000 objects anew | {:.1} | 1 |", fresh * 1e3);
    println!("| the same after one policy changed | {:.1} | {:.2} |", reused * 1e3, reused / fresh);
    println!("| one policy with 100000 fingerprints | {:.1} | {:.2} |", large * 1e3, large / fresh);
    let [anew, one_policy, one_endpoint] = large_cluster(if quick { 3 } else { 15 });
    println!(
        "| 5000 Ingresses, 100 policies of 1000 mappings, anew | {:.1} | {:.2} |",
        anew * 1e3,
        anew / fresh
    );
    println!(
        "| the same after one policy changed | {:.1} | {:.2} |",
        one_policy * 1e3,
        one_policy / fresh
    );
    println!(
        "| the same after one endpoint changed | {:.1} | {:.2} |",
        one_endpoint * 1e3,
        one_endpoint / fresh
    );
    println!("\n{octets:.0} octets a fingerprint mapping");
    // Aims, with room for a busy machine.
    assert!(
        of("decide, one-to-one among 100000") < unit * 4.0,
        "100,000 mappings must cost what 100 do"
    );
    assert!(
        of("decide, 10000 many-to-one: one literal each, the last matches") < 15_000.0,
        "literal rules are indexed"
    );
    assert!(
        of("decide, 10000 many-to-one: a literal in common and one each") < 15_000.0,
        "by their rarest literal"
    );
    assert!(octets < 250.0, "accounts are interned");
    assert!(one_policy < anew, "what did not change is taken over");
    assert!(one_policy < 0.150, "one edit in a large cluster");
}
