//! The daemon on real interfaces: two network namespaces with a virtual cable between them.
//!
//! Needs root, `ip` and `python3`; elsewhere these tests say that they are skipped.

#[cfg(test)]
mod clock;
#[cfg(test)]
mod counting;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod fallback;
#[cfg(test)]
mod fence;
#[cfg(test)]
mod intervals;
#[cfg(test)]
mod lifetime;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod net;
#[cfg(test)]
mod planes;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod records;
#[cfg(test)]
mod service;
#[cfg(test)]
mod verdicts;
