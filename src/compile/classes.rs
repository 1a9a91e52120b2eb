//! Which Ingresses are ours, and of which class.

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::options::Options;
use super::world::{ObjectName, World};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// Whose an Ingress is.
pub(super) enum Belonging<'a> {
    /// Ours; its class, if there is one.
    Ours(Option<&'a IngressClass>),
    /// Somebody else's, or nobody's; the class that it names.
    Other(Option<&'a str>),
}

/// Whose it is.
pub(super) fn belonging<'a>(
    world: &'a World,
    options: &Options,
    ingress: &'a Ingress,
) -> Belonging<'a> {
    let annotation =
        || ingress.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let spec = ingress.spec.as_ref();
    let name = spec.and_then(|spec| spec.ingress_class_name.as_ref()).or_else(annotation);
    let Some(name) = name else {
        let mut classes = world.ingress_classes.values();
        let default = classes.find(|class| is_ours(class, options) && is_default(class));
        return match default {
            Some(class) => Belonging::Ours(Some(class)),
            None if options.directory => Belonging::Ours(None),
            None => Belonging::Other(None),
        };
    };
    let by_name = (options.directory || world.classes_unknown) && *name == options.class_name;
    match world.ingress_classes.get(&ObjectName::new("", name)) {
        Some(class) if is_ours(class, options) => Belonging::Ours(Some(class)),
        None if by_name => Belonging::Ours(None),
        Some(_) | None => Belonging::Other(Some(name)),
    }
}

fn is_ours(class: &IngressClass, options: &Options) -> bool {
    let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref());
    controller == Some(&*options.controller_name)
}

fn is_default(class: &IngressClass) -> bool {
    let annotation =
        class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS_ANNOTATION));
    annotation.is_some_and(|value| value == "true")
}
