//! The end-to-end ring: the built program seen from outside, one module a theme.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod input;
#[cfg(test)]
mod made;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod options;
#[cfg(test)]
mod output;
#[cfg(test)]
mod outsiders;
#[cfg(test)]
mod own_captures;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod workers;
