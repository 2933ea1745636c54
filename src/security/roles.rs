//! Roles and what they may do (contract 1.4).

use std::fmt;

/// What a permission is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// Members, the leader, drills, backups.
    Orchestrator,
    /// The fleet.
    Nodes,
    /// Work.
    Tasks,
    /// The replicated configuration.
    Config,
    /// Figures: status, metrics, dashboards.
    Metrics,
    /// Keys and logins.
    Users,
}

/// What somebody wants to do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Look.
    Read,
    /// Start, stop, hand over.
    Control,
    /// Change who takes part: members, keys.
    Manage,
    /// A node names itself.
    Register,
    /// A node shows that it is there.
    Heartbeat,
    /// A node, or whoever runs it, changes what is known of it; results of tasks.
    Update,
    /// Take out.
    Remove,
    /// Hand in.
    Submit,
    /// End early.
    Cancel,
    /// Be given work.
    Receive,
    /// Change.
    Write,
}

/// One thing that may be permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission(pub Area, pub Action);

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(area, action) = self;
        write!(f, "{area:?}:{action:?}")
    }
}

/// Who somebody is, as far as permissions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Runs the fleet; sees the configuration.
    Operator,
    /// A node or agent of the fleet.
    Node,
    /// Hands in work.
    Client,
    /// Looks.
    Readonly,
    /// Is somebody, and no more: accounts that nobody granted a role.
    Guest,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::Operator, Self::Node, Self::Client, Self::Readonly, Self::Guest];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Node => "node",
            Self::Client => "client",
            Self::Readonly => "readonly",
            Self::Guest => "guest",
        }
    }

    /// The role of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// Whether this role has `permission`: the lists of contract 1.4.
    #[must_use]
    pub fn may(self, permission: Permission) -> bool {
        let Permission(area, action) = permission;
        match self {
            Self::Admin => true,
            Self::Operator => match area {
                Area::Orchestrator => matches!(action, Action::Read | Action::Control),
                Area::Nodes | Area::Tasks | Area::Metrics => true,
                Area::Config => action == Action::Read,
                Area::Users => false,
            },
            Self::Node => match area {
                Area::Nodes => {
                    matches!(action, Action::Register | Action::Heartbeat | Action::Update)
                }
                Area::Tasks => matches!(action, Action::Receive | Action::Update),
                Area::Metrics => action == Action::Read,
                Area::Orchestrator | Area::Config | Area::Users => false,
            },
            Self::Client => match area {
                Area::Tasks => matches!(action, Action::Submit | Action::Read),
                Area::Nodes | Area::Metrics => action == Action::Read,
                Area::Orchestrator | Area::Config | Area::Users => false,
            },
            Self::Readonly => match area {
                Area::Nodes | Area::Tasks | Area::Metrics | Area::Config => action == Action::Read,
                Area::Orchestrator | Area::Users => false,
            },
            Self::Guest => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_1_4_the_lists_of_permissions() {
        use Action::*;
        use Area::*;
        let may = |role: Role, area, action| role.may(Permission(area, action));
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(may(role, Metrics, Read), role != Role::Guest, "figures: {role:?}");
            assert_eq!(may(role, Users, Manage), role == Role::Admin);
            assert_eq!(may(role, Config, Write), role == Role::Admin);
            assert_eq!(may(role, Orchestrator, Manage), role == Role::Admin);
        }
        assert!(may(Role::Operator, Orchestrator, Control) && may(Role::Operator, Tasks, Cancel));
        assert!(may(Role::Node, Nodes, Heartbeat) && may(Role::Node, Tasks, Update));
        assert!(!may(Role::Node, Nodes, Read) && !may(Role::Node, Tasks, Submit));
        assert!(may(Role::Client, Tasks, Submit) && !may(Role::Client, Tasks, Cancel));
        assert!(may(Role::Readonly, Config, Read) && !may(Role::Client, Config, Read));
        assert!(!may(Role::Readonly, Tasks, Submit) && !may(Role::Guest, Tasks, Read));
        assert_eq!(Role::parse("root"), None);
    }
}
