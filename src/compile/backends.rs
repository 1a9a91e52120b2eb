//! Services and their EndpointSlices → backends.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IngressServiceBackend;

use super::endpoints::{Rules, endpoints, protocol};
use super::options::Options;
use super::world::{ObjectName, World};
use crate::snapshot::{Backend, Protocol, Target};

/// Backends by name, for the next time: one keeps what is known of it and of its endpoints.
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
        let (target, protocol, problem) = match found {
            Ok((Target::Endpoints(endpoints), protocol)) if endpoints.is_empty() => {
                let problem = format!("Service {service_name} has no ready endpoint");
                (Target::Endpoints(endpoints), protocol, Some(problem))
            }
            Ok((target, protocol)) => (target, protocol, None),
            Err(problem) => (Target::default(), Protocol::default(), Some(problem)),
        };
        let problem: Option<Arc<str>> = problem.map(Into::into);
        // Another problem makes another backend: what was said of the old one is not said again.
        let same = earlier.filter(|earlier| {
            let backend = &earlier.backend;
            (&backend.target, backend.protocol, &earlier.problem) == (&target, protocol, &problem)
        });
        let backend = match (same, earlier) {
            (Some(same), _) => same.backend.clone(),
            (None, earlier) => {
                let made = Backend::new(name, target, protocol);
                Arc::new(match earlier {
                    Some(earlier) => made.after(&earlier.backend),
                    None => made,
                })
            }
        };
        KeptBackend {
            service: service.cloned(),
            slices: slices.iter().map(|slice| (*slice).clone()).collect(),
            backend,
            problem,
        }
    }

    fn target(
        &self,
        name: &ObjectName,
        service: Option<&Arc<Service>>,
        slices: &[&Arc<EndpointSlice>],
        backend: &IngressServiceBackend,
    ) -> Result<(Target, Protocol), String> {
        let service = service.ok_or_else(|| format!("Service {name} does not exist"))?;
        if let Some(external) = external_name(service) {
            return self.external(name, service, external, backend);
        }
        let port = port(service, backend).ok_or_else(|| {
            format!("Service {name} has no such port (ports: {})", ports(service))
        })?;
        let rules = Rules { loopback: self.options.directory, zone: self.options.zone.as_deref() };
        let endpoints = endpoints(slices, port, rules)?;
        Ok((Target::Endpoints(endpoints), protocol(service, Some(port))?))
    }

    fn external(
        &self,
        name: &ObjectName,
        service: &Service,
        external: &str,
        backend: &IngressServiceBackend,
    ) -> Result<(Target, Protocol), String> {
        if !self.options.external_names {
            return Err(format!(
                "Service {name} is an ExternalName, which is not allowed: run with --allow-external-names, or use a Service with endpoints"
            ));
        }
        // An ExternalName needs no ports; a number in the Ingress then is the port itself.
        let number = backend.port.as_ref().and_then(|port| port.number);
        let named = port(service, backend);
        let port = named.map(|port| port.port).or(number).and_then(|port| u16::try_from(port).ok());
        let port =
            port.ok_or_else(|| format!("Service {name} has no such port: write a number"))?;
        let protocol = protocol(service, named)?;
        Ok((Target::Name(external.to_ascii_lowercase().into(), port), protocol))
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
