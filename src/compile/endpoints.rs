//! EndpointSlices → endpoints: which addresses are one pod, which are usable, near, and with what weight.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{self, EndpointConditions, EndpointSlice};

use super::options::Options;
use crate::api::{BACKEND_PROTOCOL_ANNOTATION, WEIGHT_ANNOTATION};
use crate::snapshot::{Endpoint, Protocol};

/// The greatest weight.
const MOST_WEIGHT: u16 = 1000;

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
    options: &Options,
) -> Result<Box<[Endpoint]>, String> {
    let ready = usable(slices, port, options, is_ready)?;
    let found = match ready.is_empty() {
        // Better those that are about to go and still serve than nobody.
        true => usable(slices, port, options, is_serving_its_last)?,
        false => ready,
    };
    let near = nearness(&found, options.zone.as_deref());
    let made = found.into_iter().zip(near).map(|(found, near)| {
        let (addresses, weight) = (found.addresses.into(), found.weight);
        Endpoint { addresses, weight, near, state: Arc::default() }
    });
    Ok(made.collect())
}

fn usable(
    slices: &[&Arc<EndpointSlice>],
    port: &ServicePort,
    options: &Options,
    fits: fn(Option<&EndpointConditions>) -> bool,
) -> Result<Vec<Found>, String> {
    // A pod with an address of each family stands in a slice for each.
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for slice in slices {
        let (Some(port), weight) = (slice_port(slice, port), weight(slice)?) else { continue };
        let endpoints = slice.endpoints.iter().flatten().filter(|_| weight > 0);
        for endpoint in endpoints.filter(|endpoint| fits(endpoint.conditions.as_ref())) {
            let addresses = endpoint.addresses.iter().filter_map(|it| it.parse::<IpAddr>().ok());
            let addresses = addresses.filter(|it| options.directory || !it.is_loopback());
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
