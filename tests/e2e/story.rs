//! The story that the project was started for, with pods as backends, certificates out of Secrets and kubectl between requests.

use super::eventually;
use super::site::{Site, config_map, indented, ingress, ingress_with, policy};

const REQUIRE: &str = "[Ssl, SslNegotiateCert, SslRequireCert]";
const TRUST: &str = "trust: {caCertificateRefs: [{kind: ConfigMap, name: corporate-ca}]}";
const HOST: &str = "app.story.test";

fn zerossl(flags: &str) -> String {
    format!(
        "sslFlags: {flags}\n{TRUST}\nmanyToOne:\n  mappings:\n  - name: zerossl\n    rules: [{{certificateField: Issuer, certificateSubField: O, matchCriteria: ZeroSSL}}]\n    account: {{userName: test, secretRef: {{name: test}}}}\nforward: {{userHeader: X-Remote-User}}\n"
    )
}

#[test]
fn a_certificate_becomes_an_account_and_kubectl_changes_whose() {
    let site = Site::new("story", &[HOST, "*.story.test"], 1).ready();
    site.namespace.apply(&ingress("app", HOST, "/", "whoami-0"));
    site.until("-", HOST, "/", "200");
    // One certificate, one account, by a Secret of its own.
    let certificate = serde_json::json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "alice"}, "stringData": {"tls.crt": site.alice.pem()}});
    site.namespace.apply(&certificate.to_string());
    let one_to_one = format!(
        "sslFlags: {REQUIRE}\n{TRUST}\noneToOne:\n  mappings:\n  - name: alice\n    certificateRef: {{kind: Secret, name: alice}}\n    account: {{secretRef: {{name: azureuser}}}}\nforward: {{userHeader: X-Remote-User}}\n"
    );
    site.policy("app", "app", &one_to_one);
    site.until_user("alice", HOST, "/", "azureuser");
    for (who, code) in
        [("-", "403.7"), ("stranger", "403.16"), ("expired", "403.17"), ("bob", "401.2")]
    {
        assert_eq!(site.get(who, HOST, "/").code(), code, "{who}");
    }
    // Many certificates, one account.
    site.policy("app", "app", &zerossl(REQUIRE));
    site.until_user("alice", HOST, "/", "test");
    assert_eq!(site.get("bob", HOST, "/").user(), "test");
    // The account is renamed, and then taken away.
    site.namespace.kubectl(&[
        "patch",
        "secret",
        "test",
        "-p",
        "{\"stringData\": {\"username\": \"ignored\"}}",
    ]);
    site.namespace.kubectl(&["delete", "secret", "test"]);
    site.until("alice", HOST, "/", "401.1");
    site.namespace.apply(&super::site::basic_secret("test", "test", "new"));
    site.until_user("alice", HOST, "/", "test");
    // Another CA in place of the first.
    let other = super::pki::Ca::new("Contoso");
    site.namespace.apply(&config_map("corporate-ca", "ca.crt", &other.pem()));
    site.until("alice", HOST, "/", "403.16");
    site.namespace.apply(&config_map("corporate-ca", "ca.crt", &site.zerossl.pem()));
    site.until_user("alice", HOST, "/", "test");
    // Asked for and not demanded, a password helps who has no certificate.
    let fallback = zerossl("[Ssl, SslNegotiateCert]")
        + "authentication: [{basic: {secretRefs: [{name: azureuser}]}}]\n";
    site.policy("app", "app", &fallback);
    site.until("-", HOST, "/", "401.2");
    let basic = super::client::curl(
        site.installed,
        site.path(),
        "-",
        HOST,
        "/",
        &["-u", "azureuser:correct-horse"],
    );
    assert_eq!(basic.user(), "azureuser", "{basic:?}");
    assert_eq!(site.get("stranger", HOST, "/").code(), "403.16");
}

#[test]
fn attaching_and_detaching() {
    let site = Site::new("attach", &["*.attach.test"], 1).ready();
    let host = "a.attach.test";
    site.namespace.apply(&ingress("a", host, "/", "whoami-0"));
    site.until("-", host, "/", "200");
    let spec = site.alice_spec(REQUIRE);
    site.policy("p", "a", &spec);
    site.until("-", host, "/", "403.7");
    // The same path by another Ingress without a policy, and a deeper one of its own: never laxer on the shared path.
    site.namespace.apply(&ingress_with(
        "b",
        "ingressClassName: certmap\n",
        host,
        &[("/", "Prefix", "whoami-1"), ("/open", "Prefix", "whoami-1")],
    ));
    site.until("-", host, "/open", "200");
    assert_eq!(site.get("-", host, "/").code(), "403.7");
    assert_eq!(site.get("alice", host, "/").port(), "8080", "the oldest keeps the path");
    // Two that say the same join; two that do not refuse.
    site.policy("q", "a", &zerossl(REQUIRE));
    site.until_user("bob", host, "/", "test");
    assert_eq!(site.get("alice", host, "/").user(), "azureuser", "one-to-one goes first");
    site.policy("q", "a", &zerossl("[Ssl, SslNegotiateCert]"));
    site.until("alice", host, "/", "503.91");
    site.namespace.kubectl(&["delete", "certmappingpolicy", "q"]);
    site.until_user("alice", host, "/", "azureuser");
    site.namespace.kubectl(&["delete", "certmappingpolicy", "p"]);
    site.until("-", host, "/", "200");
}

#[test]
fn a_required_policy_closes_while_it_is_missing_deleted_or_not_accepted() {
    let site = Site::new("required", &["*.required.test"], 1).ready();
    let host = "a.required.test";
    let annotated = ingress("a", host, "/", "whoami-0").replace(
        "metadata: {name: a}",
        "metadata: {name: a, annotations: {certmap.dev/policy-required: \"true\"}}",
    );
    site.namespace.apply(&annotated);
    site.until("-", host, "/", "503.90");
    site.policy("p", "a", &site.alice_spec(REQUIRE));
    site.until_user("alice", host, "/", "azureuser");
    site.policy("q", "a", &site.alice_spec("[Ssl, SslNegotiateCert]"));
    site.until("alice", host, "/", "503.91");
    site.namespace.kubectl(&["delete", "certmappingpolicy", "p", "q"]);
    site.until("alice", host, "/", "503.90");
}

#[test]
fn a_class_may_have_a_default_policy_and_an_ingress_its_own() {
    let site = Site::new("class", &["*.klass.test"], 1).ready();
    let class = format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: e2e-guarded}}\nspec:\n  controller: certmap.dev/ingress-controller\n  parameters: {{apiGroup: certmap.dev, kind: CertMappingPolicy, name: default, namespace: {}, scope: Namespace}}\n",
        site.namespace.0
    );
    let host = "a.klass.test";
    site.namespace.apply(&class);
    let guarded =
        ingress_with("a", "ingressClassName: e2e-guarded\n", host, &[("/", "Prefix", "whoami-0")]);
    site.namespace.apply(&guarded);
    site.until("alice", host, "/", "503.90");
    let default = format!(
        "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {{name: default}}\nspec:\n{}",
        indented(&site.alice_spec(REQUIRE), 2)
    );
    site.namespace.apply(&default);
    site.until_user("alice", host, "/", "azureuser");
    site.policy("own", "a", &zerossl(REQUIRE));
    site.until_user("alice", host, "/", "test");
    site.namespace.kubectl(&["delete", "ingressclass", "e2e-guarded"]);
    site.until("alice", host, "/", "404");
}

#[test]
fn objects_of_another_namespace_only_with_a_reference_grant() {
    let site = Site::new("grant", &["*.grant.test"], 1).ready();
    let vault = super::cluster::Namespace::new("vault");
    vault.apply(&config_map("shared-ca", "ca.crt", &site.zerossl.pem()));
    let host = "a.grant.test";
    site.namespace.apply(&ingress("a", host, "/", "whoami-0"));
    let spec = site.alice_spec(REQUIRE).replace(
        "kind: ConfigMap, name: corporate-ca",
        &format!("kind: ConfigMap, name: shared-ca, namespace: {}", vault.0),
    );
    site.namespace.apply(&policy("p", "a", &spec));
    site.until("alice", host, "/", "403.16");
    let message = site.namespace.get(&["certmappingpolicy", "p"]).to_string();
    eventually("the reason in status", || {
        let policy = site.namespace.get(&["certmappingpolicy", "p"]).to_string();
        if policy.contains("create a ReferenceGrant") { Ok(()) } else { Err(policy) }
    });
    drop(message);
    super::cluster::apply("default", GRANT_CRD);
    eventually("the kind ReferenceGrant", || {
        let (ok, text) = super::cluster::try_apply(
            &vault.0,
            &format!(
                "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g}}\nspec:\n  from: [{{group: certmap.dev, kind: CertMappingPolicy, namespace: {}}}]\n  to: [{{group: \"\", kind: ConfigMap, name: shared-ca}}]\n",
                site.namespace.0
            ),
        );
        if ok { Ok(()) } else { Err(text) }
    });
    site.until_user("alice", host, "/", "azureuser");
    vault.kubectl(&["delete", "referencegrant", "g"]);
    site.until("alice", host, "/", "403.16");
}

/// As much of the Gateway API's definition as the test needs.
const GRANT_CRD: &str = r#"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: referencegrants.gateway.networking.k8s.io
  annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes-sigs/gateway-api/pull/2997"}
spec:
  group: gateway.networking.k8s.io
  scope: Namespaced
  names: {kind: ReferenceGrant, listKind: ReferenceGrantList, plural: referencegrants, singular: referencegrant}
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"#;
