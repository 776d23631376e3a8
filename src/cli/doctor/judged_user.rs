//! The user for whom `doctor` judges: the one as whom the daemon runs, who may not be the caller.

use std::path::Path;

use super::finding::Finding;
use crate::config::{Config, DEFAULT_FILE};
use crate::platform::{Access, AccessError, Platform, ServiceUnit, User, check_access};

/// The user that the package creates.
const SERVICE_USER: &str = "denoised";

pub(super) struct JudgedUser {
    user: User,
    reason: String,
    is_caller: bool,
    /// The unit by which the daemon runs, if it is installed and uses the judged configuration.
    pub(super) unit: Option<ServiceUnit>,
}

impl JudgedUser {
    /// Finds the user of the installed service. Without one, or for a configuration that is not the service's, it is the
    /// owner of the spool, or else the caller.
    pub(super) fn find(config_file: Option<&Path>, config: &Config, platform: &Platform) -> Self {
        let caller = User::of_this_process();
        let is_service_config = config_file.is_none_or(|file| file == Path::new(DEFAULT_FILE));
        let unit = platform.service_unit().filter(|_| is_service_config);
        let service = match &unit {
            Some(unit) => {
                let groups = unit.supplementary_groups().filter_map(|name| platform.group(name));
                let with_groups = |mut user: User| {
                    user.gids.extend(groups);
                    (user, "who runs denoised.service".to_owned())
                };
                platform.user(unit.user()).map(with_groups)
            }
            None if is_service_config => platform
                .user(SERVICE_USER)
                .map(|user| (user, "whom the package creates for the daemon".to_owned())),
            None => None,
        };
        let owner = || {
            let owner = platform.owner(&config.spool.path)?;
            Some((owner, format!("who owns {}", config.spool.path.display())))
        };
        match service.or_else(owner) {
            Some((user, reason)) if user.uid != caller.uid => Self { user, reason, is_caller: false, unit },
            _ => Self { user: caller, reason: String::new(), is_caller: true, unit },
        }
    }

    pub(super) fn finding(&self) -> Finding {
        if self.is_caller {
            return Finding::good("user", "judged for the user of this command");
        }
        Finding::good("user", format!("judged for the user {}, {}", self.user.name, self.reason))
    }

    /// Whether the caller is the user who is judged.
    pub(super) fn is_caller(&self) -> bool {
        self.is_caller
    }

    /// The user in the middle of a sentence.
    pub(super) fn name(&self) -> String {
        if self.is_caller { "this user".to_owned() } else { format!("the user {}", self.user.name) }
    }

    /// The user as an argument of a shell command.
    pub(super) fn argument(&self) -> &str {
        if self.is_caller { "\"$USER\"" } else { &self.user.name }
    }

    pub(super) fn is_member(&self, group: u32) -> bool {
        self.user.uid == 0 || self.user.gids.contains(&group) || self.user.gids.contains(&0)
    }

    /// Checks the access to a file. What the caller may not look at is an error of its own kind.
    pub(super) fn check(&self, path: &Path, access: Access) -> Result<(), AccessError> {
        check_access(&self.user, path, access)
    }

    /// A finding about a file that the user may not access, or that is hidden from the caller.
    pub(super) fn denied(
        &self,
        about: &str,
        path: &Path,
        operation: &str,
        error: &AccessError,
        next: String,
    ) -> Finding {
        if matches!(error, AccessError::Hidden(_)) {
            return Finding::note(about, error.to_string(), "run sudo denoised doctor, which can look at it");
        }
        if let AccessError::Denied { path: directory, .. } = error
            && directory != path
        {
            let next = format!("sudo chmod o+x {}, or use another directory", directory.display());
            return Finding::missing(
                about,
                format!("{} cannot {operation} {}: {error}", self.name(), path.display()),
                next,
            );
        }
        Finding::missing(
            about,
            format!("{} cannot {operation} {}: {error}", self.name(), path.display()),
            next,
        )
    }
}
