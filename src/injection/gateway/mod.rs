//! The gateways: one file each, one line each in [`ALL`].

mod ambassador;
mod envoy;

use super::patch::ContainerPatch;
use super::pod::{Container, Pod};
use crate::annotations::{CONTAINER, GATEWAY, GATEWAYS, Settings};
use crate::reason::{Finding, Reason};

/// A kind of gateway: how to recognise it and how to tell it to send statsd.
pub struct Gateway {
    /// The value of `gwmon.io/gateway`.
    pub name: &'static str,
    /// Whether this container is such a gateway.
    recognise: fn(&Container) -> bool,
    /// What to add to the container, and on which port the exporter must listen.
    ///
    /// # Errors
    /// The reason why it cannot be told.
    pub tell: fn(&Container, &Settings) -> Result<Telling, Finding>,
}

/// How one gateway container is made to send statsd.
#[derive(Debug, PartialEq, Eq)]
pub struct Telling {
    /// The UDP port on loopback to which it will send.
    pub statsd_port: u16,
    /// What that takes.
    pub patch: ContainerPatch,
}

/// Every gateway that gwmon knows, the most specific first.
pub const ALL: &[Gateway] = &[ambassador::GATEWAY, envoy::GATEWAY];

/// The one container of the pod that is its gateway: its index in `spec.containers`, and its kind.
///
/// # Errors
/// [`Reason::NoGateway`], [`Reason::AmbiguousGateway`] or [`Reason::ContainerNotFound`], with the annotation
/// that settles it.
pub fn find(pod: &Pod, settings: &Settings) -> Result<(usize, &'static Gateway), Finding> {
    let containers = pod.spec.containers.as_deref().unwrap_or_default();
    let named = |name: &str| containers.iter().position(|c| c.name == name);
    let kind_of = |container: &Container| match settings.gateway {
        Some(asked) => ALL.iter().find(|g| g.name == asked),
        None => ALL.iter().find(|g| (g.recognise)(container)),
    };
    if let Some(name) = &settings.container {
        let index = named(name).ok_or_else(|| {
            let there: Vec<_> = containers.iter().map(|c| c.name.as_str()).collect();
            Finding::new(
                Reason::ContainerNotFound,
                format!("{CONTAINER}: no container {name:?}; there are {}", there.join(", ")),
            )
        })?;
        return kind_of(&containers[index]).map(|gateway| (index, gateway)).ok_or_else(|| no_gateway(name));
    }
    let recognised: Vec<_> = containers
        .iter()
        .enumerate()
        .filter_map(|(i, c)| {
            let kind = ALL.iter().find(|g| (g.recognise)(c))?;
            (settings.gateway.is_none_or(|asked| asked == kind.name)).then_some((i, kind))
        })
        .collect();
    match (recognised.as_slice(), containers) {
        ([one], _) => Ok(*one),
        // Not recognised, but the user says what it is and there is only this one.
        ([], [only]) if settings.gateway.is_some() => {
            kind_of(only).map(|g| (0, g)).ok_or_else(|| no_gateway(&only.name))
        }
        ([], _) => Err(no_gateway(&containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", "))),
        (several, _) => {
            let names: Vec<_> = several.iter().map(|(i, _)| containers[*i].name.as_str()).collect();
            let detail = format!("containers {} could each be the gateway; choose with {CONTAINER}", names.join(", "));
            Err(Finding::new(Reason::AmbiguousGateway, detail))
        }
    }
}

fn no_gateway(containers: &str) -> Finding {
    let detail = format!(
        "no gateway known in containers {containers}; say which with {GATEWAY} ({}) and {CONTAINER}",
        GATEWAYS.join(", ")
    );
    Finding::new(Reason::NoGateway, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_can_be_named_in_the_annotation() {
        assert_eq!(ALL.iter().map(|gateway| gateway.name).collect::<Vec<_>>(), GATEWAYS);
    }
}
