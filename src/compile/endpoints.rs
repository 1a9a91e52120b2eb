//! EndpointSlices → endpoints: which addresses are one pod, which are usable, near, and with what weight.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{self, EndpointConditions, EndpointSlice};

use crate::api::{BACKEND_PROTOCOL_ANNOTATION, WEIGHT_ANNOTATION};
use crate::snapshot::{Endpoint, Protocol};

/// The greatest weight.
const MOST_WEIGHT: u16 = 1000;

/// What is told to the program of endpoints.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Whether a loopback address can be one.
    pub(super) loopback: bool,
    /// Where this replica stands.
    pub(super) zone: Option<&'a str>,
}

/// What is found of an endpoint in its slices.
struct Found {
    addresses: Vec<SocketAddr>,
    weight: u16,
    zones: Option<Vec<String>>,
}

/// The usable endpoints of a Service's port: those that are ready, or else those that are about to go and still serve.
///
/// # Errors
/// A weight is none.
pub(super) fn endpoints(
    slices: &[&Arc<EndpointSlice>],
    port: &ServicePort,
    rules: Rules<'_>,
) -> Result<Box<[Endpoint]>, String> {
    let ready = usable(slices, port, rules, is_ready)?;
    let found = match ready.is_empty() {
        // Better those that are about to go and still serve than nobody.
        true => usable(slices, port, rules, is_serving_its_last)?,
        false => ready,
    };
    let near = nearness(&found, rules.zone);
    let made = found.into_iter().zip(near).map(|(found, near)| {
        let (addresses, weight) = (found.addresses.into(), found.weight);
        Endpoint { addresses, weight, near, state: Arc::default() }
    });
    Ok(made.collect())
}

fn usable(
    slices: &[&Arc<EndpointSlice>],
    port: &ServicePort,
    rules: Rules<'_>,
    fits: fn(Option<&EndpointConditions>) -> bool,
) -> Result<Vec<Found>, String> {
    // A pod with an address of each family stands in a slice for each.
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for slice in slices {
        let (Some(port), weight) = (slice_port(slice, port), weight(slice)?) else { continue };
        let endpoints = slice.endpoints.iter().flatten().filter(|_| weight > 0);
        for endpoint in endpoints.filter(|endpoint| fits(endpoint.conditions.as_ref())) {
            let addresses = endpoint.addresses.iter().filter_map(|it| it.parse::<IpAddr>().ok());
            let addresses = addresses.filter(|it| rules.loopback || !it.is_loopback());
            for address in addresses.map(|address| SocketAddr::new(address, port)) {
                let one = found.entry(identity(endpoint, address)).or_insert_with(|| Found {
                    addresses: Vec::new(),
                    weight,
                    zones: zones(endpoint),
                });
                one.addresses.push(address);
            }
        }
    }
    Ok(sorted(found.into_values().collect()))
}

/// The same list in whatever order slices come.
fn sorted(mut found: Vec<Found>) -> Vec<Found> {
    for one in &mut found {
        one.addresses.sort_unstable();
        one.addresses.dedup();
    }
    found.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    found
}

/// What two addresses of one pod have in common.
fn identity(endpoint: &v1::Endpoint, address: SocketAddr) -> String {
    let pod = endpoint.target_ref.as_ref().and_then(|it| it.uid.as_ref().or(it.name.as_ref()));
    pod.map_or_else(|| address.to_string(), |pod| format!("{pod} {}", address.port()))
}

/// A slice's port has the name of the Service's port that it is for.
fn slice_port(slice: &EndpointSlice, service_port: &ServicePort) -> Option<u16> {
    let named = |name: Option<&String>| name.map_or("", String::as_str).to_owned();
    let port = slice
        .ports
        .iter()
        .flatten()
        .find(|port| named(port.name.as_ref()) == named(service_port.name.as_ref()));
    port.and_then(|port| u16::try_from(port.port?).ok())
}

fn weight(slice: &EndpointSlice) -> Result<u16, String> {
    let annotations = slice.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(WEIGHT_ANNOTATION)) else { return Ok(1) };
    text.parse().ok().filter(|weight| *weight <= MOST_WEIGHT).ok_or_else(|| {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        format!(
            "EndpointSlice {name} has the {WEIGHT_ANNOTATION} {text:?}: write 0 to {MOST_WEIGHT}"
        )
    })
}

fn zones(endpoint: &v1::Endpoint) -> Option<Vec<String>> {
    let zones = endpoint.hints.as_ref()?.for_zones.as_ref()?;
    Some(zones.iter().map(|zone| zone.name.clone()).collect())
}

/// As kube-proxy reads hints: only where every endpoint has one, and one is for this zone.
fn nearness(found: &[Found], zone: Option<&str>) -> Vec<bool> {
    let is_for = |zones: &Vec<String>| zones.iter().any(|it| Some(it.as_str()) == zone);
    let near = found.iter().map(|it| it.zones.as_ref().is_some_and(is_for));
    let near: Vec<bool> = near.collect();
    let counts = found.iter().all(|it| it.zones.is_some()) && near.contains(&true);
    if counts { near } else { vec![true; found.len()] }
}

fn is_ready(conditions: Option<&EndpointConditions>) -> bool {
    conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn is_serving_its_last(conditions: Option<&EndpointConditions>) -> bool {
    conditions.is_some_and(|it| it.serving.unwrap_or(false) && it.terminating.unwrap_or(false))
}

/// What a Service's port speaks: what the annotation says, or else its `appProtocol`.
///
/// # Errors
/// The annotation says nothing that is known.
pub(super) fn protocol(service: &Service, port: Option<&ServicePort>) -> Result<Protocol, String> {
    let annotations = service.metadata.annotations.as_ref();
    if let Some(text) = annotations.and_then(|all| all.get(BACKEND_PROTOCOL_ANNOTATION)) {
        return Ok(match text.to_ascii_uppercase().as_str() {
            "HTTP" => Protocol::Http1,
            "HTTPS" => Protocol::Https,
            "H2C" | "GRPC" => Protocol::H2c,
            "H2" | "GRPCS" => Protocol::H2,
            _ => return Err(unknown(service, text)),
        });
    }
    let named = port.and_then(|port| port.app_protocol.as_deref()).unwrap_or_default();
    let named = named.to_ascii_lowercase();
    Ok(match named.as_str() {
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => Protocol::H2c,
        "https" | "kubernetes.io/wss" | "wss" => Protocol::Https,
        "h2" | "grpcs" => Protocol::H2,
        // What is not known is not HTTP/2, and has no TLS.
        _ => Protocol::Http1,
    })
}

fn unknown(service: &Service, text: &str) -> String {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    format!(
        "Service {name} has the {BACKEND_PROTOCOL_ANNOTATION} {text:?}: write HTTP, HTTPS, H2C, H2, GRPC or GRPCS"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(endpoints: &Value, weight: Option<&str>) -> Arc<EndpointSlice> {
        let annotations = weight.map(|weight| json!({ WEIGHT_ANNOTATION: weight }));
        let slice = json!({
            "metadata": {"name": "a-1", "annotations": annotations}, "addressType": "IPv4",
            "ports": [{"port": 8080}], "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn made(slices: &[Arc<EndpointSlice>], zone: Option<&str>) -> Result<Box<[Endpoint]>, String> {
        let slices: Vec<&Arc<EndpointSlice>> = slices.iter().collect();
        endpoints(&slices, &ServicePort::default(), Rules { loopback: false, zone })
    }

    fn hosts(endpoints: &[Endpoint]) -> Vec<Vec<String>> {
        let host = |address: &SocketAddr| address.ip().to_string();
        endpoints.iter().map(|it| it.addresses.iter().map(host).collect()).collect()
    }

    #[test]
    fn a_pods_addresses_of_both_families_are_one_endpoint() {
        let pod = |address: &str, uid: &str| json!({"addresses": [address], "targetRef": {"kind": "Pod", "uid": uid}});
        let old = slice(&json!([pod("10.0.0.1", "a"), pod("10.0.0.2", "b")]), None);
        let new = slice(&json!([pod("2001:db8::2", "b"), pod("2001:db8::1", "a")]), None);
        let made = made(&[new, old], None).unwrap();
        assert_eq!(hosts(&made), [["10.0.0.1", "2001:db8::1"], ["10.0.0.2", "2001:db8::2"]]);
    }

    #[test]
    fn only_those_that_are_ready_and_no_loopback_and_else_those_that_still_serve() {
        let one = |host: u8, ready: bool, serving: bool| {
            let conditions = json!({"ready": ready, "serving": serving, "terminating": !ready});
            json!({"addresses": [format!("10.0.0.{host}")], "conditions": conditions})
        };
        let local = json!({"addresses": ["127.0.0.1"]});
        let some = json!([one(1, true, true), one(2, false, true), one(3, false, false), local]);
        assert_eq!(hosts(&made(&[slice(&some, None)], None).unwrap()), [["10.0.0.1"]]);
        let none = json!([one(2, false, true), one(3, false, false)]);
        assert_eq!(hosts(&made(&[slice(&none, None)], None).unwrap()), [["10.0.0.2"]]);
    }

    #[test]
    fn a_slices_weight_is_for_each_of_its_endpoints_and_none_gets_nothing() {
        let endpoint = |host: u8| json!([{"addresses": [format!("10.0.0.{host}")]}]);
        let slices = [
            slice(&endpoint(1), Some("90")),
            slice(&endpoint(2), None),
            slice(&endpoint(3), Some("0")),
        ];
        let weights: Vec<u16> = made(&slices, None).unwrap().iter().map(|it| it.weight).collect();
        assert_eq!(weights, [90, 1]);
        for wrong in ["-1", "1001", "many", ""] {
            let problem = made(&[slice(&endpoint(1), Some(wrong))], None).unwrap_err();
            assert!(problem.contains("a-1") && problem.contains("write 0 to 1000"), "{problem}");
        }
    }

    #[test]
    fn hints_count_where_all_have_them_and_one_is_for_this_zone() {
        let one = |host: u8, zone: &str| {
            let hints = json!({"forZones": [{"name": zone}]});
            json!({"addresses": [format!("10.0.0.{host}")], "hints": hints})
        };
        let near = |endpoints: Value, zone: Option<&str>| -> Vec<bool> {
            made(&[slice(&endpoints, None)], zone).unwrap().iter().map(|it| it.near).collect()
        };
        let both = json!([one(1, "a"), one(2, "b")]);
        assert_eq!(near(both.clone(), Some("b")), [false, true]);
        assert_eq!(near(both.clone(), Some("c")), [true, true]);
        assert_eq!(near(both, None), [true, true]);
        let partly = json!([one(1, "a"), {"addresses": ["10.0.0.2"]}]);
        assert_eq!(near(partly, Some("a")), [true, true]);
    }

    #[test]
    fn the_annotation_goes_before_the_ports_protocol() {
        let service = |annotation: Option<&str>| -> Service {
            let annotations = annotation.map(|it| json!({ BACKEND_PROTOCOL_ANNOTATION: it }));
            serde_json::from_value(json!({"metadata": {"name": "a", "annotations": annotations}}))
                .unwrap()
        };
        let port = |protocol: Option<&str>| ServicePort {
            app_protocol: protocol.map(str::to_owned),
            ..ServicePort::default()
        };
        for (annotation, app_protocol, expected) in [
            (None, None, Protocol::Http1),
            (None, Some("http"), Protocol::Http1),
            (None, Some("kubernetes.io/ws"), Protocol::Http1),
            (None, Some("mysql"), Protocol::Http1),
            (None, Some("kubernetes.io/h2c"), Protocol::H2c),
            (None, Some("GRPC"), Protocol::H2c),
            (None, Some("kubernetes.io/wss"), Protocol::Https),
            (None, Some("https"), Protocol::Https),
            (None, Some("grpcs"), Protocol::H2),
            (Some("grpcs"), Some("http"), Protocol::H2),
            (Some("HTTP"), Some("https"), Protocol::Http1),
            (Some("H2C"), None, Protocol::H2c),
            (Some("HTTPS"), Some("grpc"), Protocol::Https),
        ] {
            let found = protocol(&service(annotation), Some(&port(app_protocol)));
            assert_eq!(found, Ok(expected), "{annotation:?} {app_protocol:?}");
        }
        assert!(protocol(&service(Some("SPDY")), None).is_err());
    }
}
