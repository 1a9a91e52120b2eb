//! Where this installation can be reached: what the Ingresses' status says.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{LoadBalancerStatus, Pod, Service};
use k8s_openapi::api::networking::v1::{IngressLoadBalancerIngress, IngressPortStatus};
use kube::Client;
use kube::api::{Api, ListParams};

use crate::compile::ObjectName;

/// Labels by which a pod finds the others of its installation.
const KIN: &[&str] = &["app.kubernetes.io/name", "app.kubernetes.io/instance"];

/// What the Ingresses' status is filled from.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// The Service whose addresses are taken over.
    pub service: Option<ObjectName>,
    /// These addresses and names, instead.
    pub addresses: Vec<String>,
    /// The addresses of the nodes on which this installation's pods run; this pod is known by namespace and name.
    pub nodes_of: Option<ObjectName>,
}

impl Publish {
    /// Whether there is anything to publish.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.service.is_some() || !self.addresses.is_empty() || self.nodes_of.is_some()
    }
}

/// The addresses now.
///
/// # Errors
/// The API server does not say.
pub async fn addresses(
    client: &Client,
    publish: &Publish,
) -> Result<Vec<IngressLoadBalancerIngress>, kube::Error> {
    if !publish.addresses.is_empty() {
        return Ok(publish.addresses.iter().map(|address| entry(address)).collect());
    }
    if let Some(name) = &publish.service {
        let services: Api<Service> = Api::namespaced(client.clone(), &name.namespace);
        return Ok(services
            .get_opt(&name.name)
            .await?
            .map(|it| of_service(&it))
            .unwrap_or_default());
    }
    match &publish.nodes_of {
        Some(pod) => of_nodes(client, pod).await,
        None => Ok(Vec::new()),
    }
}

/// What stands in its status; of a Service without a load balancer, its external or cluster addresses.
fn of_service(service: &Service) -> Vec<IngressLoadBalancerIngress> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let published: Vec<_> = balancer.into_iter().flat_map(of_balancer).collect();
    if !published.is_empty() {
        return published;
    }
    let Some(spec) = &service.spec else { return Vec::new() };
    let external = spec.external_ips.iter().flatten();
    let is_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    // One that waits for its load balancer has no address yet.
    let cluster = spec.cluster_ips.iter().flatten().filter(|ip| !is_balancer && *ip != "None");
    let mut all: Vec<_> = external.map(|address| entry(address)).collect();
    if all.is_empty() {
        all.extend(cluster.map(|address| entry(address)));
    }
    all
}

fn of_balancer(balancer: &LoadBalancerStatus) -> Vec<IngressLoadBalancerIngress> {
    let all = balancer.ingress.iter().flatten();
    all.map(|it| IngressLoadBalancerIngress {
        hostname: it.hostname.clone(),
        ip: it.ip.clone(),
        ports: it.ports.as_ref().map(|ports| {
            let port = |port: &k8s_openapi::api::core::v1::PortStatus| IngressPortStatus {
                error: port.error.clone(),
                port: port.port,
                protocol: port.protocol.clone(),
            };
            ports.iter().map(port).collect()
        }),
    })
    .collect()
}

async fn of_nodes(
    client: &Client,
    pod: &ObjectName,
) -> Result<Vec<IngressLoadBalancerIngress>, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let all = pods.list(&ListParams::default()).await?;
    let labels = |pod: &Pod| {
        let of = |name: &str| pod.metadata.labels.as_ref()?.get(name).cloned();
        KIN.iter().map(|name| of(name)).collect::<Vec<_>>()
    };
    let me = all.items.iter().find(|it| it.metadata.name.as_ref() == Some(&pod.name));
    let Some(mine) = me.map(labels) else { return Ok(Vec::new()) };
    let kin = all
        .items
        .iter()
        .filter(|it| labels(it) == mine && it.metadata.deletion_timestamp.is_none());
    let hosts: BTreeSet<&str> =
        kin.filter_map(|it| it.status.as_ref()?.host_ip.as_deref()).collect();
    Ok(hosts.into_iter().map(entry).collect())
}

fn entry(address: &str) -> IngressLoadBalancerIngress {
    let is_ip = address.parse::<std::net::IpAddr>().is_ok();
    IngressLoadBalancerIngress {
        ip: is_ip.then(|| address.to_owned()),
        hostname: (!is_ip).then(|| address.to_owned()),
        ports: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn published(service: Value) -> Vec<String> {
        let service: Service = serde_json::from_value(service).unwrap();
        of_service(&service).into_iter().filter_map(|it| it.ip.or(it.hostname)).collect()
    }

    #[test]
    fn a_load_balancers_addresses_go_before_others() {
        let spec = |kind: &str| json!({"type": kind, "clusterIPs": ["10.96.0.9"]});
        let status =
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.test"}]}});
        assert_eq!(
            published(json!({"spec": spec("LoadBalancer"), "status": status})),
            ["192.0.2.1", "lb.test"]
        );
        assert!(published(json!({"spec": spec("LoadBalancer")})).is_empty());
        assert_eq!(published(json!({"spec": spec("ClusterIP")})), ["10.96.0.9"]);
        assert!(published(json!({"spec": {"clusterIPs": ["None"]}})).is_empty());
        assert_eq!(
            published(
                json!({"spec": {"clusterIPs": ["10.96.0.9"], "externalIPs": ["198.51.100.1"]}})
            ),
            ["198.51.100.1"]
        );
    }
}
