//! The daemon on real interfaces: two network namespaces with a virtual cable between them.
//!
//! Needs root, `ip` and `python3`; elsewhere these tests say that they are skipped.

#[cfg(test)]
mod counting;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod lifetime;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod net;
