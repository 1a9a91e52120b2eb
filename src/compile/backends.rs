//! Services and their EndpointSlices → addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::api::networking::v1::IngressServiceBackend;

use super::options::Options;
use super::world::{ObjectName, World};
use crate::snapshot::{Backend, Target};

/// Backends by name, for the next time: one whose endpoints are the same keeps its turn.
pub(super) type KeptBackends = HashMap<Box<str>, KeptBackend>;

/// A backend, what it was made from, and what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct KeptBackend {
    service: Option<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
    pub(super) backend: Arc<Backend>,
    /// A sentence.
    pub(super) problem: Option<Arc<str>>,
}

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Makes backends.
pub(super) struct Backends<'a> {
    world: &'a World,
    slices: HashMap<(&'a str, &'a str), Vec<&'a Arc<EndpointSlice>>>,
    options: &'a Options,
    earlier: &'a KeptBackends,
    pub(super) kept: KeptBackends,
}

impl<'a> Backends<'a> {
    /// Loopback addresses are endpoints only where the objects come from a directory.
    pub(super) fn new(world: &'a World, options: &'a Options, earlier: &'a KeptBackends) -> Self {
        let mut slices: HashMap<(&str, &str), Vec<&Arc<EndpointSlice>>> = HashMap::new();
        for (name, slice) in &world.endpoint_slices {
            if let Some(service) =
                slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL))
            {
                slices.entry((&name.namespace, service)).or_default().push(slice);
            }
        }
        Self { world, slices, options, earlier, kept: KeptBackends::new() }
    }

    /// The backend that an Ingress names, perhaps with a sentence about why it has no endpoints.
    pub(super) fn get(&mut self, namespace: &str, backend: &IngressServiceBackend) -> &KeptBackend {
        let port = backend.port.as_ref();
        let wanted = port.and_then(|port| {
            port.name.clone().or_else(|| port.number.map(|number| number.to_string()))
        });
        let name: Box<str> =
            format!("{namespace}/{}:{}", backend.name, wanted.unwrap_or_default()).into();
        if !self.kept.contains_key(&name) {
            let made = self.keep(namespace, backend, &name);
            self.kept.insert(name.clone(), made);
        }
        self.kept.entry(name).or_insert_with_key(|_| KeptBackend::missing())
    }

    /// As it was, where its objects are what they were.
    fn keep(&self, namespace: &str, backend: &IngressServiceBackend, name: &str) -> KeptBackend {
        let service_name = ObjectName::new(namespace, &backend.name);
        let service = self.world.services.get(&service_name);
        let slices = self.slices.get(&(namespace, backend.name.as_str()));
        let slices = slices.map(Vec::as_slice).unwrap_or_default();
        let earlier = self.earlier.get(name);
        if let Some(earlier) = earlier.filter(|earlier| earlier.is_current(service, slices)) {
            return earlier.clone();
        }
        let found = self.target(&service_name, service, slices, backend);
        let (target, problem) = match found {
            Ok(Target::Endpoints(endpoints)) if endpoints.is_empty() => {
                let problem = format!("Service {service_name} has no ready endpoint");
                (Target::Endpoints(endpoints), Some(problem))
            }
            Ok(target) => (target, None),
            Err(problem) => (Target::default(), Some(problem)),
        };
        let problem: Option<Arc<str>> = problem.map(Into::into);
        // Another problem makes another backend: what was said of the old one is not said again.
        let same = earlier
            .filter(|earlier| earlier.backend.target == target && earlier.problem == problem);
        let backend = same.map(|earlier| earlier.backend.clone());
        KeptBackend {
            service: service.cloned(),
            slices: slices.iter().map(|slice| (*slice).clone()).collect(),
            backend: backend.unwrap_or_else(|| Arc::new(Backend::new(name, target))),
            problem,
        }
    }

    fn target(
        &self,
        name: &ObjectName,
        service: Option<&Arc<Service>>,
        slices: &[&Arc<EndpointSlice>],
        backend: &IngressServiceBackend,
    ) -> Result<Target, String> {
        let service = service.ok_or_else(|| format!("Service {name} does not exist"))?;
        if let Some(external) = external_name(service) {
            return self.external(name, service, external, backend);
        }
        let port = port(service, backend).ok_or_else(|| {
            format!("Service {name} has no such port (ports: {})", ports(service))
        })?;
        let usable = |fits: fn(Option<&EndpointConditions>) -> bool| {
            let addresses = slices.iter().flat_map(|slice| addresses(slice, port, fits));
            let mut endpoints: Vec<SocketAddr> = addresses
                .filter(|address| self.options.directory || !address.ip().is_loopback())
                .collect();
            endpoints.sort_unstable();
            endpoints.dedup();
            endpoints
        };
        let mut endpoints = usable(is_ready);
        if endpoints.is_empty() {
            // Better those that are about to go and still serve than nobody.
            endpoints = usable(is_serving_its_last);
        }
        Ok(Target::Endpoints(endpoints.into()))
    }

    fn external(
        &self,
        name: &ObjectName,
        service: &Service,
        external: &str,
        backend: &IngressServiceBackend,
    ) -> Result<Target, String> {
        if !self.options.external_names {
            return Err(format!(
                "Service {name} is an ExternalName, which is not allowed: run with --allow-external-names, or use a Service with endpoints"
            ));
        }
        // An ExternalName needs no ports; a number in the Ingress then is the port itself.
        let number = backend.port.as_ref().and_then(|port| port.number);
        let port = port(service, backend).map(|port| port.port).or(number);
        let port = port.and_then(|port| u16::try_from(port).ok());
        let port =
            port.ok_or_else(|| format!("Service {name} has no such port: write a number"))?;
        Ok(Target::Name(external.to_ascii_lowercase().into(), port))
    }
}

impl KeptBackend {
    fn missing() -> Self {
        Self { service: None, slices: Vec::new(), backend: Arc::default(), problem: None }
    }

    fn is_current(&self, service: Option<&Arc<Service>>, slices: &[&Arc<EndpointSlice>]) -> bool {
        super::dependency::same(self.service.as_ref(), service)
            && self.slices.len() == slices.len()
            && self.slices.iter().zip(slices).all(|(then, now)| Arc::ptr_eq(then, now))
    }
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref().filter(|it| it.type_.as_deref() == Some("ExternalName"))?;
    Some(spec.external_name.as_deref().unwrap_or_default())
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
fn addresses(
    slice: &EndpointSlice,
    service_port: &ServicePort,
    fits: fn(Option<&EndpointConditions>) -> bool,
) -> Vec<SocketAddr> {
    let named = |name: Option<&String>| name.map_or("", String::as_str).to_owned();
    let port = slice
        .ports
        .iter()
        .flatten()
        .find(|port| named(port.name.as_ref()) == named(service_port.name.as_ref()));
    let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else {
        return Vec::new();
    };
    let address = |endpoint: &Endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok();
    let endpoints = slice.endpoints.iter().flatten().filter(|it| fits(it.conditions.as_ref()));
    endpoints.filter_map(address).map(|address| SocketAddr::new(address, port)).collect()
}

fn is_ready(conditions: Option<&EndpointConditions>) -> bool {
    conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn is_serving_its_last(conditions: Option<&EndpointConditions>) -> bool {
    conditions.is_some_and(|it| it.serving.unwrap_or(false) && it.terminating.unwrap_or(false))
}

/// The names of Services and the ways in which they are reached, without a policy and with one.
pub(super) type Reached<'a> = BTreeMap<&'a ObjectName, (Vec<&'a str>, Vec<&'a str>)>;
