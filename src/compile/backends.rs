//! Services and their EndpointSlices → ready addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IngressServiceBackend;

use super::options::Options;
use super::world::{ObjectName, World};
use crate::snapshot::Backend;

/// Backends by name, for the next time: one whose endpoints are the same keeps its turn.
pub(super) type KeptBackends = HashMap<Box<str>, Arc<Backend>>;

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Makes backends.
pub(super) struct Backends<'a> {
    world: &'a World,
    slices: HashMap<ObjectName, Vec<&'a EndpointSlice>>,
    options: &'a Options,
    earlier: &'a KeptBackends,
    pub(super) kept: KeptBackends,
}

impl<'a> Backends<'a> {
    /// Loopback addresses are endpoints only where the objects come from a directory.
    pub(super) fn new(world: &'a World, options: &'a Options, earlier: &'a KeptBackends) -> Self {
        let mut slices: HashMap<ObjectName, Vec<&EndpointSlice>> = HashMap::new();
        for (name, slice) in &world.endpoint_slices {
            if let Some(service) =
                slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL))
            {
                slices.entry(ObjectName::new(&name.namespace, service)).or_default().push(slice);
            }
        }
        Self { world, slices, options, earlier, kept: KeptBackends::new() }
    }

    /// The backend that an Ingress names; a sentence where it has no endpoints, or never will.
    pub(super) fn get(
        &mut self,
        namespace: &str,
        backend: &IngressServiceBackend,
    ) -> (Arc<Backend>, Option<String>) {
        let service = ObjectName::new(namespace, &backend.name);
        let port = backend.port.as_ref();
        let wanted = port.and_then(|port| {
            port.name.clone().or_else(|| port.number.map(|number| number.to_string()))
        });
        let name = format!("{service}:{}", wanted.unwrap_or_default());
        let (endpoints, problem) = match self.endpoints(&service, backend) {
            Ok(endpoints) if endpoints.is_empty() => {
                (endpoints, Some(format!("Service {service} has no ready endpoint")))
            }
            Ok(endpoints) => (endpoints, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        (self.keep(&name, endpoints), problem)
    }

    fn keep(&mut self, name: &str, endpoints: Vec<SocketAddr>) -> Arc<Backend> {
        let earlier = self
            .kept
            .get(name)
            .or_else(|| self.earlier.get(name))
            .filter(|kept| *kept.endpoints == *endpoints);
        let backend =
            earlier.cloned().unwrap_or_else(|| Arc::new(Backend::new(name, endpoints.into())));
        self.kept.insert(name.into(), backend.clone());
        backend
    }

    fn endpoints(
        &self,
        name: &ObjectName,
        backend: &IngressServiceBackend,
    ) -> Result<Vec<SocketAddr>, String> {
        let service = self
            .world
            .services
            .get(name)
            .ok_or_else(|| format!("Service {name} does not exist"))?;
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return Err(format!(
                "Service {name} is an ExternalName: only Services with EndpointSlices can be backends"
            ));
        }
        let port = port(service, backend).ok_or_else(|| {
            format!("Service {name} has no such port (ports: {})", ports(service))
        })?;
        let slices = self.slices.get(name).into_iter().flatten();
        let mut endpoints: Vec<SocketAddr> = slices.flat_map(|slice| ready(slice, port)).collect();
        endpoints.retain(|address| self.options.directory || !address.ip().is_loopback());
        endpoints.sort_unstable();
        endpoints.dedup();
        Ok(endpoints)
    }
}

fn port<'a>(service: &'a Service, backend: &IngressServiceBackend) -> Option<&'a ServicePort> {
    let wanted = backend.port.as_ref()?;
    let mut ports = service.spec.as_ref()?.ports.as_ref()?.iter();
    ports.find(|port| match (&wanted.name, wanted.number) {
        (Some(name), _) => port.name.as_ref() == Some(name),
        (None, number) => Some(port.port) == number,
    })
}

fn ports(service: &Service) -> String {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let word = |port: &ServicePort| {
        port.name
            .clone()
            .map_or_else(|| port.port.to_string(), |name| format!("{name} {}", port.port))
    };
    ports.map(word).collect::<Vec<_>>().join(", ")
}

/// A slice's port has the name of the Service's port that it is for.
fn ready(slice: &EndpointSlice, service_port: &ServicePort) -> Vec<SocketAddr> {
    let named = |name: Option<&String>| name.map_or("", String::as_str).to_owned();
    let port = slice
        .ports
        .iter()
        .flatten()
        .find(|port| named(port.name.as_ref()) == named(service_port.name.as_ref()));
    let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else {
        return Vec::new();
    };
    let is_ready = |conditions: Option<bool>| conditions.unwrap_or(true);
    let endpoints = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|e| is_ready(e.conditions.as_ref().and_then(|c| c.ready)));
    let addresses =
        endpoints.filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok());
    addresses.map(|address| SocketAddr::new(address, port)).collect()
}

/// The names of Services and the routes that reach them, for the warning about unprotected ways in.
pub(super) type Reached = BTreeMap<ObjectName, (Vec<String>, Vec<String>)>;
