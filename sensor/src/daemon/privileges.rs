//! Least privilege: once everything is open, the run becomes an ordinary user that may still watch further interfaces.
//!
//! Called before any thread is made: on Linux these rights belong to threads, and those made later inherit them.

use std::io;

use nix::unistd;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// Whom a run becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    uid: u32,
    gid: u32,
}

/// Why rights could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Nobody is called so.
    #[error("there is no user `{name}`")]
    UnknownUser {
        /// As configured.
        name: String,
    },
    /// Only root becomes somebody else.
    #[error("only root can become `{name}`: start as root, or leave the user out")]
    NotRoot {
        /// As configured.
        name: String,
    },
    /// The system refused.
    #[error("can't give up the rights of root: {0}")]
    System(#[from] io::Error),
}

impl User {
    /// Whom to become: the user configured, else [`USER_DEFAULT`] for root, else nobody else (`None`).
    ///
    /// # Errors
    /// A user that doesn't exist, or that only root can become.
    pub fn choose(configured: Option<&str>) -> Result<Option<Self>, PrivilegeError> {
        let is_root = geteuid().is_root();
        let Some(name) = configured.or(is_root.then_some(USER_DEFAULT)) else { return Ok(None) };
        let unknown = || PrivilegeError::UnknownUser { name: name.to_owned() };
        let found = unistd::User::from_name(name).map_err(io::Error::from)?.ok_or_else(unknown)?;
        if !is_root && found.uid != unistd::geteuid() {
            return Err(PrivilegeError::NotRoot { name: name.to_owned() });
        }
        Ok(Some(Self { name: name.to_owned(), uid: found.uid.as_raw(), gid: found.gid.as_raw() }))
    }

    /// The numbers of the user and of the main group.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }
}

/// Whom root becomes where nobody is configured.
pub const USER_DEFAULT: &str = "nobody";

/// Becomes `user`, keeps those of these rights that were there, and no other; none can be gained any more.
///
/// # Errors
/// What the system says.
pub(super) fn give_up(user: Option<&User>, rights: CapabilitySet) -> Result<(), PrivilegeError> {
    let system = |error: rustix::io::Errno| PrivilegeError::System(error.into());
    if let Some(user) = user.filter(|_| geteuid().is_root()) {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        set_keep_capabilities(true).map_err(system)?;
        set_thread_groups(&[gid]).map_err(system)?;
        set_thread_res_gid(gid, gid, gid).map_err(system)?;
        set_thread_res_uid(uid, uid, uid).map_err(system)?;
    }
    let kept = capabilities(None).map_err(system)?.permitted & rights;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(system)?;
    set_no_new_privs(true).map_err(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_by_name() {
        let refusal = User::choose(Some("no-such-user-here")).unwrap_err().to_string();
        assert_eq!(refusal, "there is no user `no-such-user-here`");
        let default = User::choose(None).unwrap();
        assert_eq!(default.is_some(), geteuid().is_root());
        if let Some(user) = default {
            assert_eq!(user.name, "nobody");
            assert_ne!(user.ids().0, 0);
        }
    }
}
